"""The durable journal between intake and delivery (R2, R10)."""

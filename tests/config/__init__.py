"""The configuration: samples good and bad, positions, units, hostile input."""

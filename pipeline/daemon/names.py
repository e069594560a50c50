"""Where the daemon's processes meet, in the state folder.

By itself, so that who speaks to intake does not import what intake is made of.
"""

INTAKE_SOCKET = "intake.sock"
INTAKE_LOCK = "intake.lock"
DELIVERY_LOCK = "delivery.lock"

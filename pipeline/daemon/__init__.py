"""The processes of a live daemon: intake and delivery, which the supervisor keeps running."""

"""The processes of a live daemon: intake, delivery, and the parent that keeps them running."""

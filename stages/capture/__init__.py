"""Capture: what protected disks hold, and what of it the vault does not have yet."""

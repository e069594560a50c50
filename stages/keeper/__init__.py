"""Retention: which points stay, what nothing needs any more, moving frames, deleting (R16)."""

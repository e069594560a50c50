"""A live replica: disk files that follow a machine's log, always at a known commit or repaired."""

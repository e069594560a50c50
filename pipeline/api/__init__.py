"""The HTTP API: what an operator may see of the daemon and ask of it."""

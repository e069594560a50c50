"""The NBD protocol without I/O, and a trio server for it."""

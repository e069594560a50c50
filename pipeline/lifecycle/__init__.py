"""Where a machine's protection stands and what follows from what happens: a table without I/O."""

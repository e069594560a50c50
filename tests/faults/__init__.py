"""Faults, at the command line: what the user sees, what is left behind, how it goes on."""

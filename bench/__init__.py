"""Measures Backstay beside other programs and beside what the machine can do at most."""

"""Finds a faster configuration of the pipeline on this machine, and says how sure that is."""

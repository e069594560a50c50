"""The activity log: which regions of a disk may differ after a crash (R1, R6, R9)."""

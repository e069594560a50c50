"""Scanning disks while they are written (R8)."""

"""Encryption: frames sealed with the epoch's key."""

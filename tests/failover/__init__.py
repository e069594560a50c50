"""Failover: its records in the vault, its operations, its targets."""

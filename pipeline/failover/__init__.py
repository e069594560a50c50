"""Failover from a vault and a key alone: its state is records in the vault (R14).

No daemon, no configuration and no state folder: any host with the operator's key can fail a machine
over, change the point, commit, cancel, test and clean up.
"""

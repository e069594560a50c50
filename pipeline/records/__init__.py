"""The control database: machines' states, jobs, events and the audit chain."""

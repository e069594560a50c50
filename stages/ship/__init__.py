"""Shipping: parallel upload, ordered commit, and the writer's own record of the vault."""

"""A second site: it keeps vaults of other machines, and serves them over HTTPS."""

"""Where objects live: one port, several stores, one conformance suite."""

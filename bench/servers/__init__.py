"""Object stores that are started for measuring and for tests: real ones, of packages."""

"""Groups that begin at a point of another."""

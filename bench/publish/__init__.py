"""The README's performance section: made from result files that are kept beside the source."""

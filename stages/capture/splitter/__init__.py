"""The write splitter: NBD requests to the source, and every mutation into the group's stream."""

"""The data plane: what happens to bytes on their way from a disk into a vault and back."""

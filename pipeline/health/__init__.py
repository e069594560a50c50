"""How well machines and the daemon are: pure evaluation, and the calm that stops its flapping."""

"""Cryptographic primitives, each a thin name over libsodium or BLAKE3."""

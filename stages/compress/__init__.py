"""Compression: segments into zstd frames."""

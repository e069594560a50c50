"""The vault: an ordered log of immutable objects. FORMAT.md gives every byte."""

"""Recovery: from a vault and a key to a disk that can be used."""

"""Vaults in Amazon S3 (and what speaks its language), Azure Blob Storage, Google Cloud Storage."""

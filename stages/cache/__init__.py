"""The cache: folds the stream of writes into segments."""

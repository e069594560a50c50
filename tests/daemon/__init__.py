"""The processes of a live daemon and what joins them."""

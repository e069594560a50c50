"""What an operator sees of the daemon and may ask of it: names and views that all sides share."""

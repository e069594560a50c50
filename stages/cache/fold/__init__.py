"""From journal records to segments."""

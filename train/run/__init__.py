"""A run: its configuration, defaults, recipes, folder, event log and backend."""

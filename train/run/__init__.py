"""A run: its configuration, recipes, folder and event log."""

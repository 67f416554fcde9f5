"""Checks of datasets: damage, leaks, duplicates, and labels in the wrong convention."""

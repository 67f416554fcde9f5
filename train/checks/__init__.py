"""Checks before a long run: of the labels, and of whether the model learns at all."""

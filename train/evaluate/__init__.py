"""Scores of a trained model, with intervals, baselines and pictures."""

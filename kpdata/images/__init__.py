"""Encoded images and their pixels; nothing of labels."""

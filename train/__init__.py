"""Keras 3 trainer: models, losses, input, loop and evaluation of shards; see README.md."""

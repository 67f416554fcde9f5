"""Targets, losses and augmentation as pure functions on tensors."""

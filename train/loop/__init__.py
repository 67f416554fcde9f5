"""Training: epochs, phases, optimisers, and the checks before it."""

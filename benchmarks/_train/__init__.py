"""The parts of the training's benchmark."""

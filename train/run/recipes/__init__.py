"""Named training runs: one module each, whose docstring says what it costs and what it reaches."""

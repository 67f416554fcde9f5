"""What looks wrong: damage, leaks, duplicates, and labels that mean something else."""

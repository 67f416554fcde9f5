"""What the benchmarks share: the machine's description and the report."""

"""Plan: which sample goes into which shard."""

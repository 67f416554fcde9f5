"""Write: a planned shard's pictures and records."""

"""Make batches from shards: find each instance's crop, decode it, and order the crops."""

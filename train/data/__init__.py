"""From shards to batches: the crop of each instance, its pixels, and the order of crops."""

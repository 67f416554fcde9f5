"""From shards to batches: the crop that a model sees, its pixels, and the order of pictures."""

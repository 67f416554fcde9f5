"""A trained model at work: on shards, photos and videos."""

"""A trained model at work: on shards, images and videos."""

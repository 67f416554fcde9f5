"""Use a trained model on shards, images and videos."""

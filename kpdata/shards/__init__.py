"""Shard folders: records, TFRecord framing, the manifest, the quarantine, and their readers."""

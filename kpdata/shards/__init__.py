"""The shard folder: records, TFRecord framing, manifest, quarantine, and reading it all back."""

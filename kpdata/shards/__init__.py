"""The shard folder: records, TFRecord crop_rule, manifest, quarantine, and reading it all back."""

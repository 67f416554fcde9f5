"""The output folder while a conversion fills it: on a disk, or on a store."""

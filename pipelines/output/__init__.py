"""The output folder of a running conversion, on a disk or on an object store, and its lock."""

"""Bytes and where they lie: files, object stores, temporary tables, whole writes."""

"""Local files, object stores, atomic writes, temporary databases and parallel reading."""

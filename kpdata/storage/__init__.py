"""Files, object stores, temporary databases, atomic writes."""

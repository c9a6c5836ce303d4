"""Shape and first-order measurements of segments."""

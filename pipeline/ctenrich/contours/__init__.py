"""Expert contours (RTSTRUCT) as masks."""

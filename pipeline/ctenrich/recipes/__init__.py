"""Recipes: published ways of using networks (orientation, crop, resampling, parts, post-processing), as data."""

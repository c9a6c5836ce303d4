"""The stages of a series and of a product, and the table of their dependencies."""

"""Coded terms: the CSV mappings, the checks of them, and the terminology that they are held against."""

"""Coded terms: the CSV mappings, their checks, and the terminology that they are checked against."""

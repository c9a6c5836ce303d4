"""Manage models (list, import, pull, verify) and compare engines; the demonstration models lie in this folder."""

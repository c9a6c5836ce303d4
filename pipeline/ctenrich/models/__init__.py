"""Manage models (list, import, pull, verify) and compare engines; the demonstration models are in this folder."""

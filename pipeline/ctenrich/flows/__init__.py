"""Flows: files that state which received images start which models, and where the results go."""

"""Runs container images under a contract, closed by default: no network, read-only, no capabilities, limits."""

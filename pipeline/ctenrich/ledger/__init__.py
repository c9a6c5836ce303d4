"""The ledger of a run: one SQLite file with outcomes, timings, issues and leases; only this package opens it."""

"""Runs a cohort: what was asked for, the ledger of outcomes, and the executors that do the work."""

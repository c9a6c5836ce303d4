"""The offline report of a run: one page for the cohort, and one per series."""

from ctenrich.report.build import build_report

__all__ = ["build_report"]

"""The offline report of a run: one page for the cohort, one a series."""

from ctenrich.report.build import build_report

__all__ = ["build_report"]

"""Choose series by SQL on metadata: the cohort, everything that was excluded and why, and what makes it repeatable."""

from __future__ import annotations

from ctenrich.select.consort import Consort, consort_of, consort_svg, consort_text, load_consort
from ctenrich.select.files import excluded_path, lock_path, read_cohort, read_excluded, write_cohort
from ctenrich.select.selection import Selection, cohort_sha256, select_cohort

__all__ = [
    "Consort",
    "Selection",
    "cohort_sha256",
    "consort_of",
    "consort_svg",
    "consort_text",
    "excluded_path",
    "load_consort",
    "lock_path",
    "read_cohort",
    "read_excluded",
    "select_cohort",
    "write_cohort",
]

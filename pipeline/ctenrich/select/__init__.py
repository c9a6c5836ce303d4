"""Choose series by SQL on metadata: the cohort, everything that was excluded and why, and what makes it repeatable."""

from __future__ import annotations

from ctenrich.select.cohort_file import (
    entries_at,
    open_cohort,
    patients_of,
    read_cohort,
    remember_check,
    sizes_of,
    uids_of,
)
from ctenrich.select.cohort_hash import cohort_sha256
from ctenrich.select.compare import (
    CohortDiff,
    CohortSummary,
    SeriesChange,
    describe_cohort,
    diff_cohorts,
    read_lock,
    relock,
)
from ctenrich.select.consort import Consort, consort_of, consort_svg, consort_text, load_consort
from ctenrich.select.files import excluded_path, lock_path, read_excluded, write_cohort
from ctenrich.select.selection import Selection, select_cohort
from ctenrich.select.series_list import read_series_list, select_series_list
from ctenrich.select.sizes import SeriesSize, size_of_series

__all__ = [
    "CohortDiff",
    "CohortSummary",
    "Consort",
    "Selection",
    "SeriesChange",
    "SeriesSize",
    "cohort_sha256",
    "consort_of",
    "consort_svg",
    "consort_text",
    "describe_cohort",
    "diff_cohorts",
    "entries_at",
    "excluded_path",
    "load_consort",
    "lock_path",
    "open_cohort",
    "patients_of",
    "read_cohort",
    "read_excluded",
    "read_lock",
    "read_series_list",
    "relock",
    "remember_check",
    "select_cohort",
    "select_series_list",
    "size_of_series",
    "sizes_of",
    "uids_of",
    "write_cohort",
]

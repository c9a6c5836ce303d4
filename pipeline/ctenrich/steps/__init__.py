"""The steps as Python functions, one per stage, for notebooks and scripts; each can be resumed from disk.

>>> from ctenrich import steps
>>> steps.index(["my-dicom-folder"], "catalog.duckdb")                        # doctest: +SKIP
>>> steps.select("select_ct_series", "folder:catalog.duckdb", "cohort.parquet")  # doctest: +SKIP
>>> run = steps.start("cohort.parquet", "my-run", segmenters=["expert"])     # doctest: +SKIP
>>> steps.fetch(run); steps.sort(run); volumes = steps.convert(run)          # doctest: +SKIP
>>> masks = steps.segment(run)                                               # doctest: +SKIP
"""

from __future__ import annotations

from ctenrich.runner.preview import preview
from ctenrich.runner.status import retry, status
from ctenrich.steps.harmonising import HarmoniseSource, harmonise
from ctenrich.steps.outputs import (
    export,
    export_images,
    export_nnunet_raw,
    export_objects,
    export_probabilities,
    release,
)
from ctenrich.steps.results import (
    AgreementReport,
    dose_tables,
    evaluate,
    finish,
    measure_doses,
    quality,
    query,
    report,
    tables,
    verify,
)
from ctenrich.steps.running import StageReport, open_run, outcomes, run_command, run_stages, start
from ctenrich.steps.selection import SelectRequest, index, select, select_request
from ctenrich.steps.stages import convert, encode, features, fetch, measure, score, segment, sort, validate
from ctenrich.steps.whole import run_all

__all__ = [
    "AgreementReport",
    "HarmoniseSource",
    "SelectRequest",
    "StageReport",
    "convert",
    "dose_tables",
    "encode",
    "evaluate",
    "export",
    "export_images",
    "export_nnunet_raw",
    "export_objects",
    "export_probabilities",
    "features",
    "fetch",
    "finish",
    "harmonise",
    "index",
    "measure",
    "measure_doses",
    "open_run",
    "outcomes",
    "preview",
    "quality",
    "query",
    "release",
    "report",
    "retry",
    "run_all",
    "run_command",
    "run_stages",
    "score",
    "segment",
    "select",
    "select_request",
    "sort",
    "start",
    "status",
    "tables",
    "validate",
    "verify",
]

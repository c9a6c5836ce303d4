"""The queries of the published cohorts follow the shipped one; the table of real series in the docs is true."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ctenrich.catalog import open_catalog
from ctenrich.catalog.folder import index_folders
from ctenrich.reasons import Reason
from ctenrich.resources import folder as data_folder
from ctenrich.select.cohort_file import read_cohort
from ctenrich.select.consort import consort_of, consort_text
from ctenrich.select.files import write_cohort
from ctenrich.select.selection import select_cohort

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "selection-verdicts.md"
ARCHIVES = ("LUNG1-001", "LUNG1-002-RT", "LUNG1-005", "4D-Lung-113", "awkward", "ibsi", "ref_objects", "totalseg")


def test_the_selection_queries_are_those_of_the_templates() -> None:
    path = ROOT / "scripts" / "make_cohort_queries.py"
    spec = importlib.util.spec_from_file_location("make_cohort_queries", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert sorted(module.made()) == [
        "select_ct_series.sql",
        "select_idc_series.sql",
        "select_nlst.sql",
        "select_nsclc_radiomics.sql",
    ]
    for name, text in module.made().items():
        assert (data_folder("queries") / name).read_text("utf-8") == text, f"run {path.name}"


def test_every_reason_of_the_queries_is_in_the_docs() -> None:
    import re

    page = (ROOT / "docs" / "selection.md").read_text("utf-8")
    for query in data_folder("queries").glob("select_*.sql"):
        for code in re.findall(r"\['([A-Z_]+)'\]", query.read_text("utf-8")):
            assert Reason(code)
            assert f"`{code}`" in page, code


HEAD = """# Results of the selection rules on the series of the tests

Written by a test from the files themselves (`tests/select/test_docs.py`), with the defaults of `select_ct_series`, all
in one folder catalog. UIDs are shortened to their ends.

| archive | series | description | instances | spacing (mm) | result | companions |
|---|---|---|---|---|---|---|
"""
IMPLIED = {
    "995936229543": ("chest CT; the slice that its RTSTRUCT names beyond these is missing at an end", "selected"),
    "712563382046": ("chest CT", "selected"),
    "941323261228": ("chest CT among other objects, in shuffled order, ORIGINAL\\SECONDARY", "selected"),
    "477428468747": ("chest CT, ORIGINAL\\SECONDARY; the references of its SEG name another study", "selected"),
    "150714813892": ("head CT with a tilted gantry and gaps of 1.08, 4 and 7 mm", "LATERAL_DRIFT"),
    "151607525240": ("localizer", "LOCALIZER"),
    "871369966444": ("localizer", "LOCALIZER"),
    "503286111321": ("exam summaries: secondary captures with modality CT", "NOT_CT"),
    "620677418685": ("30 of 321 slices in a row, 2 mm thick every 1 mm, no Image Type", "selected"),
    "841519593982": ("IBSI's CT phantom", "selected"),
    ".3.3456.3456": ("Legacy Converted Enhanced CT", "MULTIFRAME"),
    "069050794718": ("three slices that a SEG was made from", "selected"),
    "902700569139": ("three slices that SEGs were made from", "selected"),
    "3.10.23430.1": ("three slices that SEGs were made from", "selected"),
    "072730.12322": ("one slice, with an object of another modality under its series UID", "NOT_CT"),
    "241703565.43": ("one slice", "ONE_SLICE"),
    "424112888259": ("topogram", "LOCALIZER"),
    "(empty)": ("a CT in JPEG 2000 whose UIDs and SOP class were emptied", "NOT_CT"),
}
"""Series -> its description in the documentation of the data, and the first reason that this description implies."""


@pytest.mark.data
def test_the_table_of_real_series_is_true(tmp_path: Path, real_data: Callable[[str], Path]) -> None:
    folders = {name: real_data(name) for name in ARCHIVES}
    index_folders(list(folders.values()), tmp_path / "c.duckdb", processes=1)
    catalog = open_catalog(f"folder:{tmp_path / 'c.duckdb'}")
    selection = select_cohort("select_ct_series", catalog, {})
    write_cohort(selection, tmp_path / "all.parquet")
    assert consort_of(tmp_path / "all.parquet").balanced
    rows = catalog.run(selection.query, {}).table.to_pylist()
    where = dict(
        catalog.connection.execute(  # type: ignore[attr-defined]
            "SELECT coalesce(SeriesInstanceUID, ''), min(local_path) FROM instances WHERE Modality = 'CT' GROUP BY 1"
        ).fetchall()
    )
    companions = {s.series_instance_uid: s.companions for s in read_cohort(tmp_path / "all.parquet").series}
    lines = []
    for row in rows:
        uid = row["SeriesInstanceUID"]
        archive = next(name for name, folder in folders.items() if Path(where[uid]).is_relative_to(folder.resolve()))
        spacing = "" if row["slice_spacing"] is None else f"{row['slice_spacing']:.3f}"
        found = ", ".join(f"{c.modality} ({c.link.value})" for c in companions.get(uid, ()))
        end = uid[-12:] or "(empty)"
        verdict = ", ".join(row["failed"]) or "selected"
        what, implied = IMPLIED[end]
        assert verdict.split(", ")[0] == implied, (end, what)
        lines.append(f"| {archive} | {end} | {what} | {row['num_instances']} | {spacing} | {verdict} | {found} |")
    text = (
        HEAD + "\n".join(sorted(lines)) + "\n\n```text\n" + consort_text(consort_of(tmp_path / "all.parquet")) + "```\n"
    )
    if os.environ.get("CTENRICH_WRITE_DOCS"):
        PAGE.write_text(text, "utf-8")
    assert PAGE.read_text("utf-8") == text
    selected = {line.split(" | ")[0].removeprefix("| ") for line in lines if "| selected |" in line}
    assert selected == {"LUNG1-001", "LUNG1-002-RT", "LUNG1-005", "4D-Lung-113", "awkward", "ibsi", "ref_objects"}

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
from ctenrich.select import consort_of, read_cohort, select_cohort, write_cohort
from ctenrich.select.consort import consort_text

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "selection-verdicts.md"
ARCHIVES = ("LUNG1-001", "LUNG1-002-RT", "LUNG1-005", "4D-Lung-113", "awkward", "ibsi", "ref_objects", "totalseg")


def test_the_cohort_queries_are_made_of_the_shipped_one() -> None:
    path = ROOT / "scripts" / "make_cohort_queries.py"
    spec = importlib.util.spec_from_file_location("make_cohort_queries", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, text in module.made().items():
        assert (data_folder("queries") / name).read_text("utf-8") == text, f"run {path.name}"


def test_every_reason_of_the_queries_is_in_the_docs() -> None:
    import re

    page = (ROOT / "docs" / "selection.md").read_text("utf-8")
    for query in data_folder("queries").glob("select_*.sql"):
        for code in re.findall(r"\['([A-Z_]+)'\]", query.read_text("utf-8")):
            assert Reason(code)
            assert f"`{code}`" in page, code


HEAD = """# What the rules say of the series that the tests use

Made by a test from the files themselves (`tests/select/test_docs.py`), with the defaults of `select_ct_series`, all in
one folder catalog. UIDs are shortened to their ends.

| archive | series | instances | spacing (mm) | verdict | companions |
|---|---|---|---|---|---|
"""


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
        lines.append(f"| {archive} | {end} | {row['num_instances']} | {spacing} | {verdict} | {found} |")
    text = (
        HEAD + "\n".join(sorted(lines)) + "\n\n```text\n" + consort_text(consort_of(tmp_path / "all.parquet")) + "```\n"
    )
    if os.environ.get("CTENRICH_WRITE_DOCS"):
        PAGE.write_text(text, "utf-8")
    assert PAGE.read_text("utf-8") == text
    selected = {line.split(" | ")[0].removeprefix("| ") for line in lines if "| selected |" in line}
    assert selected == {"LUNG1-001", "LUNG1-002-RT", "LUNG1-005", "4D-Lung-113", "awkward", "ibsi", "ref_objects"}

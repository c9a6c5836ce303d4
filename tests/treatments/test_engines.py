"""Treatments are the same from a folder, from Parquet files, and from BigQuery."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.services.bigquery_service import load_table, local_bigquery
from tests.support.treatment_cases import Patient

from ctenrich.catalog.base import Catalog
from ctenrich.catalog.bigquery import BigQueryCatalog
from ctenrich.catalog.folder import FolderCatalog, index_folders
from ctenrich.catalog.parquet import ParquetCatalog
from ctenrich.catalog.queries import parse_query
from ctenrich.catalog.schema import COLUMNS, arrow_schema
from ctenrich.treatments.make import TreatmentRequest, make_treatments

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def folder_catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FolderCatalog]:
    """Two whole treatments, two plans of equal rank, a dose that names no plan, and contours without a plan."""
    root = tmp_path_factory.mktemp("engines")
    for number in (1, 2):
        Patient(root / "in", f"P{number}", str(number)).whole()
    two = Patient(root / "in", "P3", "3")
    structures, _, _ = two.whole()
    two.dose(two.plan(structures=structures, number=2), 2)
    loose = Patient(root / "in", "P4", "4")
    loose.ct()
    loose.plan(structures=loose.structures())
    loose.dose()
    bare = Patient(root / "in", "P5", "5")
    bare.ct()
    bare.structures()
    index_folders([root / "in"], root / "catalog.duckdb", processes=1)
    catalog = FolderCatalog(root / "catalog.duckdb")
    yield catalog
    catalog.close()


@pytest.fixture(scope="module")
def rows(folder_catalog: FolderCatalog) -> list[dict[str, object]]:
    """All rows of the catalog, with addresses of a bucket."""
    found = folder_catalog.run(parse_query("all", "SELECT * FROM dicom_all"), {}).table.to_pylist()
    return [{**row, "gcs_url": f"gs://b/{row['SOPInstanceUID']}.dcm"} for row in found]


def outcome(catalog: Catalog) -> dict[str, object]:
    """What treatments say, without addresses of files."""
    made = make_treatments(catalog, TreatmentRequest())
    return {
        "treatments": [
            (t.patient_id, t.treatment_id, t.link.value, [p.uid for p in t.plans], [d.uid for d in t.doses])
            for t in made.treatments
        ],
        "plans": [repr([replace(plan, instance=None) for plan in t.plans]) for t in made.treatments],  # type: ignore[arg-type]
        "excluded": [(e.patient_id, e.reason, e.detail) for e in made.excluded],
        "links": sorted((link.source, link.method.value, link.state.value, link.targets) for link in made.links),
        "objects": made.objects,
        "notes": made.notes,
    }


def test_parquet_files_give_the_same_treatments(
    folder_catalog: FolderCatalog, rows: list[dict[str, object]], tmp_path: Path
) -> None:
    place = tmp_path / "idc_v25" / "dicom_all"
    place.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, arrow_schema()), place / "000000000000.parquet")
    expected = outcome(folder_catalog)
    assert len(expected["treatments"]) >= 3  # type: ignore[arg-type]
    assert expected["excluded"]
    assert outcome(ParquetCatalog(str(tmp_path))) == expected


def test_bigquery_gives_the_same_treatments(
    folder_catalog: FolderCatalog, rows: list[dict[str, object]], tmp_path: Path
) -> None:
    with local_bigquery(tmp_path) as endpoint:
        load_table(endpoint, "idc_v25.dicom_all", COLUMNS, rows)
        assert outcome(BigQueryCatalog("local", endpoint=endpoint)) == outcome(folder_catalog)

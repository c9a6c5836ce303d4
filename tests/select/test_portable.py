"""A cohort that is shared has no path of this computer, and no patient unless the user wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.support.cohorts import make_cohort

from ctenrich import steps
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import Cohort, Instance, SeriesEntry
from ctenrich.select.cohort_file import read_cohort
from ctenrich.select.files import without_local_paths


def request(folder: Path, **more: Any) -> steps.SelectRequest:
    catalog = f"folder:{folder / 'catalog.duckdb'}"
    return steps.SelectRequest("select_ct_series", catalog, folder / "shared.parquet", {}, **more)


def test_a_portable_cohort_has_no_path_and_can_be_read_but_not_run(tmp_path: Path) -> None:
    own = make_cohort(tmp_path, 1)
    assert str(tmp_path) in str(pq.read_table(own).to_pylist())
    steps.select_request(request(tmp_path, portable=True))
    files = sorted(tmp_path.glob("shared.*"))
    assert len(files) == 3
    for path in files:
        text = str(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_text()
        assert str(tmp_path) not in text, path.name
    shared = read_cohort(tmp_path / "shared.parquet")
    assert [s.series_instance_uid for s in shared.series] == [s.series_instance_uid for s in read_cohort(own).series]
    with pytest.raises(UsageError, match="without the paths") as caught:
        steps.start(tmp_path / "shared.parquet", tmp_path / "run", segmenters=["expert"])
    assert caught.value.reason is Reason.BAD_COHORT
    assert not (tmp_path / "run").exists()


def test_addresses_in_buckets_stay() -> None:
    instances = (Instance("1.2.3.1", "s3://bucket/a.dcm"), Instance("1.2.3.2", "file:///data/patient/b.dcm"))
    entry = SeriesEntry("c", "p", "1.2", "1.2.3", instances=instances)
    (found,) = without_local_paths(Cohort("c", (entry,), "0" * 64)).series
    assert [i.url for i in found.instances] == ["s3://bucket/a.dcm", ""]
    assert found.patient_id == "p"


@pytest.mark.parametrize("identified", [False, True])
def test_a_table_in_bigquery_has_neither_paths_nor_patients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identified: bool
) -> None:
    saved = []

    class Writer:
        def save_table(self, _: str, table: Any) -> None:
            saved.append(table.to_pylist())

    monkeypatch.setattr("ctenrich.steps.selection._table_writer", lambda *_: Writer())
    own = make_cohort(tmp_path, 2)
    selection, _ = steps.select_request(request(tmp_path, save_table="project.dataset.t", identified=identified))
    (rows,) = saved
    assert str(tmp_path) not in str(rows)
    patients = [entry.patient_id for entry in selection.cohort.series]
    assert all(patients)
    assert [row["patient_id"] for row in rows] == (patients if identified else ["", ""])
    assert [row["series_instance_uid"] for row in rows] == [s.series_instance_uid for s in read_cohort(own).series]
    assert all(i.url for s in read_cohort(tmp_path / "shared.parquet").series for i in s.instances), (
        "the own file keeps"
    )

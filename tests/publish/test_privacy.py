"""Patients who can be identified stay here, unless the user wants them elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage
from tests.support.cohorts import make_cohort
from tests.support.small_series import Small, save, small_slice
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.errors import UsageError
from ctenrich.publish.bigquery import publish_bigquery
from ctenrich.publish.objects import publish_to
from ctenrich.publish.privacy import check_identity_removed
from ctenrich.reasons import Reason
from ctenrich.runner.run import Run
from ctenrich.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Three series with an object each; nothing says that the patients' identity was removed."""
    for number in range(3):
        folder = tmp_path / "series" / f"1.2.{number}" / "expert" / "objects"
        folder.mkdir(parents=True)
        save(small_slice(Small(), number), folder / "seg.dcm")
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "series.parquet").write_bytes(b"never read")
    return Workspace(tmp_path)


def state(workspace: Workspace, *values: str | None) -> None:
    """Write Patient Identity Removed into the objects, in order of the series."""
    for path, value in zip(sorted(workspace.root.glob("series/*/*/objects/*.dcm")), values, strict=True):
        data = dcmread(path)
        assert data.SOPClassUID == CTImageStorage
        if value is not None:
            data.PatientIdentityRemoved = value
        data.save_as(path)


SHARED: list[Callable[[Workspace], object]] = [
    lambda workspace: publish_bigquery(workspace, "some-project.results"),
    lambda workspace: publish_to(workspace, "gs://bucket/results"),
    lambda workspace: publish_to(workspace, "s3://bucket/results"),
    lambda workspace: publish_to(workspace, "https://healthcare.googleapis.com/v1/projects/p/dicomWeb"),
]


@pytest.mark.parametrize("share", SHARED, ids=["BigQuery", "bucket", "any bucket", "Google Healthcare"])
@pytest.mark.parametrize("values", [(None, None, None), ("YES", "NO", "YES"), ("YES", "YES", None)], ids=str)
def test_a_run_is_not_shared_unless_every_series_states_that_identity_was_removed(
    workspace: Workspace, share: Callable[[Workspace], object], values: tuple[str | None, ...]
) -> None:
    state(workspace, *values)
    with pytest.raises(UsageError, match=r"Patient Identity Removed is not YES in \d of 3 series") as caught:
        share(workspace)
    assert caught.value.reason is Reason.IDENTITY_NOT_REMOVED
    assert "--identified" in caught.value.hint


def test_it_is_shared_where_identity_was_removed_or_the_user_wants_it(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="in 3 of 3 series"):
        check_identity_removed(workspace)
    check_identity_removed(workspace, identified=True)
    state(workspace, "YES", "YES", "YES")
    check_identity_removed(workspace)


def test_a_series_without_any_file_is_taken_as_the_others(workspace: Workspace) -> None:
    (workspace.root / "series" / "1.2.9").mkdir()
    state(workspace, "YES", "YES", "YES")
    check_identity_removed(workspace)


def test_a_run_of_which_nothing_is_known_is_not_shared(tmp_path: Path) -> None:
    (tmp_path / "series" / "1.2.3").mkdir(parents=True)
    with pytest.raises(UsageError) as caught:
        check_identity_removed(Workspace(tmp_path))
    assert caught.value.reason is Reason.IDENTITY_NOT_REMOVED


@pytest.mark.parametrize("removed", [False, True])
def test_the_slices_are_asked_where_a_series_has_no_object(tmp_path: Path, removed: bool) -> None:
    cohort = make_cohort(tmp_path, 1)
    for path in (tmp_path / "dicom").rglob("*.dcm"):
        data = dcmread(path)
        if removed:
            data.PatientIdentityRemoved = "YES"
        data.save_as(path)
    steps.index([tmp_path / "dicom"], tmp_path / "catalog.duckdb")
    steps.select("select_ct_series", f"folder:{tmp_path / 'catalog.duckdb'}", cohort)
    run: Run = steps.start(cohort, tmp_path / "run", segmenters=["expert"])
    steps.fetch(run)
    steps.sort(run)
    assert not list(run.root.glob("series/*/*/objects/*.dcm"))
    if removed:
        check_identity_removed(run.workspace)
        return
    with pytest.raises(UsageError, match="in 1 of 1 series"):
        check_identity_removed(run.workspace)


def test_the_command_refuses_too(tmp_path: Path) -> None:
    run = steps.start(make_cohort(tmp_path, 1), tmp_path / "run", segmenters=["expert"])
    steps.tables(run)
    done = CliRunner().invoke(app, ["publish", str(run.root), "bigquery:some-project.results"])
    assert done.exit_code != 0
    assert isinstance(done.exception, UsageError | SystemExit)


def test_a_pacs_is_not_asked_about(workspace: Workspace) -> None:
    """Objects go back to where the patients are known."""
    with pytest.raises(Exception, match="RETRY_EXHAUSTED"):
        publish_to(workspace, "http://127.0.0.1:1/dicom-web")

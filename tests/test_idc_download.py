"""Real series under their real Imaging Data Commons URLs, from the installed index, served by a local S3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ctenrich.convert import convert_series
from ctenrich.decode.ct import HEADER_TAGS
from ctenrich.decode.safe import open_dicom, quiet, text
from ctenrich.errors import IncompleteError
from ctenrich.fetch import fetch_series
from ctenrich.records import Instance, SeriesEntry
from ctenrich.settings import ConvertSettings, FetchSettings, Settings
from ctenrich.sort import sort_series
from ctenrich.workspace import Workspace
from tests.conftest import need_package, unpacked
from tests.storage.servers import s3_bucket, s3_put, s3_server

pytestmark = [pytest.mark.data, pytest.mark.long]
PATIENTS = {"LUNG1-001": 134, "LUNG1-005": 91, "113_HM10395": 99}
ARCHIVES = {"113_HM10395": "4D-Lung-113"}


def index_entry(patient: str, uids: set[str]) -> SeriesEntry:
    """The CT series of a patient that is at hand, as the installed index lists it."""
    import duckdb
    import idc_index_data

    query = (
        "SELECT collection_id, StudyInstanceUID, SeriesInstanceUID, instanceCount, series_aws_url, crdc_series_uuid"
        " FROM read_parquet($index) WHERE PatientID = $patient AND Modality = 'CT'"
    )
    values = {"index": str(idc_index_data.IDC_INDEX_PARQUET_FILEPATH), "patient": patient}
    with duckdb.connect() as connection:
        rows = [r for r in connection.execute(query, values).fetchall() if r[2] in uids]
    ((collection, study, series, count, url, uuid),) = rows
    return SeriesEntry(
        collection_id=collection,
        patient_id=patient,
        study_instance_uid=study,
        series_instance_uid=series,
        instances=(Instance("", url.removesuffix("*")),),
        crdc_series_uuid=uuid,
        geometry_known=False,
        expected_instances=count,
    )


def ct_files(root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    with quiet():
        for path in sorted(p for p in root.rglob("*.dcm") if p.is_file()):
            with open_dicom(path, tags=HEADER_TAGS) as parsed:
                if text(parsed.dataset, "Modality") == "CT":
                    found.setdefault(text(parsed.dataset, "SeriesInstanceUID"), []).append(path)
    return found


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, dict[str, SeriesEntry]]]:
    need_package("moto", "moto")
    need_package("idc-index", "idc_index_data")
    entries: dict[str, SeriesEntry] = {}
    with s3_server() as url:
        buckets: set[str] = set()
        for patient in PATIENTS:
            files = ct_files(unpacked(ARCHIVES.get(patient, patient)))
            entry = index_entry(patient, set(files))
            place = urlsplit(entry.instances[0].url)
            if place.netloc not in buckets:
                s3_bucket(url, place.netloc)
                buckets.add(place.netloc)
            for n, path in enumerate(reversed(files[entry.series_instance_uid])):
                s3_put(url, place.netloc, f"{place.path[1:]}{n:08x}.dcm", path.read_bytes())
            entries[patient] = entry
        yield url, entries


@pytest.mark.parametrize("patient", PATIENTS)
def test_a_series_comes_from_its_idc_address(
    served: tuple[str, dict[str, SeriesEntry]], patient: str, workspace: Workspace
) -> None:
    url, entries = served
    entry = entries[patient]
    settings = Settings(fetch=FetchSettings(s3_endpoint=url), convert=ConvertSettings(nifti=False))
    fetched = fetch_series(entry, settings=settings, workspace=workspace)
    assert len(fetched.files) == PATIENTS[patient] == entry.expected_instances
    assert all(f.path.startswith("source/") for f in fetched.files)
    series = sort_series(fetched, settings=settings, workspace=workspace)
    volume = convert_series(series, settings=settings, workspace=workspace)
    assert volume.shape == (PATIENTS[patient], 512, 512)


def test_an_object_that_the_bucket_lost_makes_the_series_incomplete(
    served: tuple[str, dict[str, SeriesEntry]], workspace: Workspace
) -> None:
    url, entries = served
    entry = replace(entries["LUNG1-005"], expected_instances=92)
    settings = Settings(fetch=FetchSettings(s3_endpoint=url))
    fetched = fetch_series(entry, settings=settings, workspace=workspace)
    with pytest.raises(IncompleteError, match="1 of 92"):
        sort_series(fetched, settings=settings, workspace=workspace)

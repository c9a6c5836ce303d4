"""Real series under their real Imaging Data Commons URLs, chosen from the installed index, served by a local S3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from pydicom import dcmread
from tests.conftest import need_package, unpacked
from tests.support.storage_servers import s3_bucket, s3_put, s3_server

from ctenrich import steps
from ctenrich.dicom.ct_slice import HEADER_TAGS
from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import open_dicom
from ctenrich.dicom.values import text
from ctenrich.errors import IncompleteError
from ctenrich.records import Cohort
from ctenrich.settings import ConvertSettings, FetchSettings, Settings
from ctenrich.stages.fetch import fetch_series
from ctenrich.stages.sort import sort_series
from ctenrich.workspace import Workspace

pytestmark = [pytest.mark.data, pytest.mark.long]
PATIENTS = {"LUNG1-001": 134, "LUNG1-005": 91, "113_HM10395": 99}
ARCHIVES = {"113_HM10395": "4D-Lung-113"}


def ct_files(root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    with quiet():
        for path in sorted(p for p in root.rglob("*.dcm") if p.is_file()):
            with open_dicom(path, tags=HEADER_TAGS) as parsed:
                if text(parsed.dataset, "Modality") == "CT":
                    found.setdefault(text(parsed.dataset, "SeriesInstanceUID"), []).append(path)
    return found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Cohort, dict[str, list[Path]]]]:
    """URL of the store, cohort file, cohort, and the files at hand of each series."""
    need_package("moto", "moto")
    need_package("idc-index", "idc_index_data")
    files: dict[str, list[Path]] = {}
    for patient in PATIENTS:
        files |= ct_files(unpacked(ARCHIVES.get(patient, patient)))
    out = tmp_path_factory.mktemp("selected") / "cohort.parquet"
    wanted = {"patients": list(PATIENTS), "series": sorted(files)}
    cohort = steps.select("select_idc_series", "idc", out, parameters=wanted)
    with s3_server() as url:
        buckets: set[str] = set()
        for entry in cohort.series:
            place = urlsplit(entry.instances[0].url)
            if place.netloc not in buckets:
                s3_bucket(url, place.netloc)
                buckets.add(place.netloc)
            for n, path in enumerate(reversed(files[entry.series_instance_uid])):
                s3_put(url, place.netloc, f"{place.path[1:]}{n:08x}.dcm", path.read_bytes())
        yield url, out, cohort, files


def test_selected_series_come_from_their_idc_addresses(
    served: tuple[str, Path, Cohort, dict[str, list[Path]]], tmp_path: Path
) -> None:
    url, file, cohort, files = served
    assert {e.patient_id: e.expected_instances for e in cohort.series} == PATIENTS
    assert all(i.url.startswith("s3://idc-open-data") for e in cohort.series for i in e.instances)
    settings = Settings(fetch=FetchSettings(s3_endpoint=url), convert=ConvertSettings(nifti=False))
    run = steps.start(file, tmp_path / "run", segmenters=["expert"], settings=settings)
    fetched, ordered, volumes = steps.fetch(run), steps.sort(run), steps.convert(run)
    for entry in cohort.series:
        uid = entry.series_instance_uid
        assert len(fetched[uid].files) == entry.expected_instances
        assert all(f.path.startswith("source/") for f in fetched[uid].files)
        assert volumes[uid].shape == (entry.expected_instances, 512, 512)
        array = np.load(run.workspace.resolve(uid, volumes[uid].array_path), mmap_mode="r")
        last = ordered[uid].slices[-1].sop_instance_uid
        (source,) = (d for d in map(dcmread, files[uid]) if last == d.SOPInstanceUID)
        told = source.pixel_array * float(source.RescaleSlope) + float(source.RescaleIntercept)
        inside = told > -1000
        assert np.array_equal(array[-1][inside], told[inside])


def test_an_object_that_the_bucket_lost_makes_the_series_incomplete(
    served: tuple[str, Path, Cohort, dict[str, list[Path]]], workspace: Workspace
) -> None:
    url, _, cohort, _ = served
    (entry,) = (e for e in cohort.series if e.patient_id == "LUNG1-005")
    settings = Settings(fetch=FetchSettings(s3_endpoint=url))
    fetched = fetch_series(replace(entry, expected_instances=92), settings=settings, workspace=workspace)
    with pytest.raises(IncompleteError, match="1 of 92"):
        sort_series(fetched, settings=settings, workspace=workspace)

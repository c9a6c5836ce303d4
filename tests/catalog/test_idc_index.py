"""The idc catalog on the index that pip installs: published series, unknown and known geometry."""

from __future__ import annotations

import csv
import functools
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import duckdb
import pytest
from tests.conftest import need_package
from typer.testing import CliRunner

from ctenrich.catalog import open_catalog
from ctenrich.catalog.idc_index import IdcIndexCatalog
from ctenrich.cli.main import app
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.select.files import lock_path, write_cohort
from ctenrich.select.selection import select_cohort
from ctenrich.select.series_list import select_series_list

PUBLISHED = {"nsclc_radiomics": (414, 414), "nlst": (1039, 571)}


@pytest.mark.data
@pytest.mark.parametrize("collection", sorted(PUBLISHED))
def test_published_series_are_all_in_the_index(published: Path, collection: str) -> None:
    need_package("idc", "idc_index_data")
    with (published / f"zenodo_{collection}_series_analyzed.csv").open() as handle:
        uids = [row["SeriesInstanceUID"] for row in csv.DictReader(handle)]
    selection = select_series_list(uids, IdcIndexCatalog())
    series, patients = PUBLISHED[collection]
    assert len(selection.cohort.series) == series
    assert len({s.patient_id for s in selection.cohort.series}) == patients
    assert selection.excluded.num_rows == 0
    assert not any(s.geometry_known for s in selection.cohort.series)
    assert all(s.expected_instances and s.instances[0].url.startswith("s3://") for s in selection.cohort.series)
    assert all(s.instances[0].url.endswith("/") for s in selection.cohort.series)


@pytest.mark.data
def test_the_command_says_how_many_published_series_are_confirmed_offline(published: Path, tmp_path: Path) -> None:
    need_package("idc", "idc_index_data")
    listed = published / "zenodo_nsclc_radiomics_series_analyzed.csv"
    out = tmp_path / "published.parquet"
    done = CliRunner().invoke(app, ["select", "--series-list", str(listed), "--catalog", "idc", "--out", str(out)])
    assert done.exit_code == 0, done.output
    said = "geometry confirmed by the catalog: 0 of 414; unknown: 414, checked after the fetch"
    assert "414 series selected, 0 excluded" in done.stdout
    assert said in done.stdout
    assert said in CliRunner().invoke(app, ["cohort", "show", str(out)]).stdout


def small_index(folder: Path, geometry: bool) -> IdcIndexCatalog:
    folder.mkdir()
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT 'c' AS collection_id, NULL::VARCHAR AS analysis_result_id, 'P' AS PatientID, "
            "'1.2.' || i AS SeriesInstanceUID, '1.9' AS StudyInstanceUID, 'd' AS source_DOI, 'CT' AS Modality, "
            "'1.2.840.10008.5.1.4.1.1.2' AS SOPClassUID, 'ACME ' AS Manufacturer, (10 * i + 1)::BIGINT AS instanceCount, "  # noqa: E501
            "'CC BY 4.0' AS license_short_name, 'u' || i AS crdc_series_uuid, 's3://b/u' || i || '/*' AS series_aws_url, "  # noqa: E501
            f"1.5 AS series_size_MB FROM range(4) t(i)) TO '{folder / 'idc_index.parquet'}'"
        )
        if geometry:
            connection.execute(
                "COPY (SELECT '1.2.' || i AS SeriesInstanceUID, true AS single_orientation, true AS orthogonal_orientation, "  # noqa: E501
                "true AS unique_slice_positions, i <> 2 AS consistent_in_plane_row, true AS consistent_in_plane_col, "
                "true AS consistent_pixel_spacing, true AS consistent_image_dimensions, true AS uniform_slice_spacing, "
                f"i <> 2 AS regularly_spaced_3d_volume FROM range(1, 3) t(i)) "
                f"TO '{folder / 'volume_geometry_index.parquet'}'"
            )
    return IdcIndexCatalog(folder)


def test_geometry_is_unknown_without_its_index_and_used_with_it(tmp_path: Path) -> None:
    without = select_cohort("select_idc_series", small_index(tmp_path / "a", False), {})
    assert [(s.series_instance_uid, s.geometry_known) for s in without.cohort.series] == [
        ("1.2.1", False), ("1.2.2", False), ("1.2.3", False),
    ]  # fmt: skip
    assert without.excluded["reason"].to_pylist() == ["ONE_SLICE"]
    known = select_cohort("select_idc_series", small_index(tmp_path / "b", True), {})
    assert [(s.series_instance_uid, s.geometry_known) for s in known.cohort.series] == [
        ("1.2.1", True),
        ("1.2.3", False),
    ]
    assert known.excluded["reason"].to_pylist() == ["ONE_SLICE", "LATERAL_DRIFT"]
    one = select_cohort(
        "select_idc_series", small_index(tmp_path / "c", False), {"one_per_study": "true", "manufacturers": "acme"}
    )
    assert [s.series_instance_uid for s in one.cohort.series] == ["1.2.3"]
    assert one.cohort.series[0].instances[0].size == 1_500_000


def test_a_folder_without_an_index_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        IdcIndexCatalog(tmp_path)
    assert caught.value.reason is Reason.NOT_FOUND


# ---------------------------------------------------------------- tables that are fetched


class Release(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the tables of a release are served from; requests go there."""
    folder = tmp_path / "releases" / version("idc-index-data")
    folder.mkdir(parents=True)
    handler = functools.partial(Release, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("CTENRICH_IDC_INDEX_URL", f"http://127.0.0.1:{server.server_port}")
        yield folder
        server.shutdown()
        thread.join()


def geometry_tables(folder: Path) -> None:
    """Small tables with the columns of the published ones."""
    checks = (
        "single_orientation", "orthogonal_orientation", "unique_slice_positions", "consistent_in_plane_row",
        "consistent_in_plane_col", "consistent_pixel_spacing", "consistent_image_dimensions", "uniform_slice_spacing",
        "regularly_spaced_3d_volume",
    )  # fmt: skip
    fields = ", ".join(f"i <> 3 AS {name}" for name in checks)
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT '1.2.' || i AS SeriesInstanceUID, {fields}, 0.0 AS obliquity_degrees, "
            "[0.0, 0, 0] AS origin_patient, [1.0, 0, 0, 0, 1, 0] AS ImageOrientationPatient, 3.0 AS slice_spacing_mm "
            f"FROM range(4) t(i)) TO '{folder / 'volume_geometry_index.parquet'}'"
        )
        connection.execute(
            "COPY (SELECT '1.2.' || i AS SeriesInstanceUID, ['ORIGINAL', 'PRIMARY', 'AXIAL'] AS ImageType, "
            f"i::DOUBLE AS SliceThickness FROM range(4) t(i)) TO '{folder / 'ct_index.parquet'}'"
        )


def test_missing_tables_are_fetched_when_asked_for_and_kept(release: Path, tmp_path: Path) -> None:
    small_index(tmp_path / "index", False)
    geometry_tables(release)
    kept = tmp_path / "kept"
    unasked = IdcIndexCatalog(tmp_path / "index", fetched=kept)
    assert not kept.exists(), "nothing is fetched unless it was asked for"
    assert "idc:fetch" in unasked.notes[0]
    catalog = IdcIndexCatalog(tmp_path / "index", fetch=True, fetched=kept)
    assert sorted(p.name for p in kept.iterdir()) == ["ct_index.parquet", "volume_geometry_index.parquet"]
    assert catalog.notes == ()
    for file in release.iterdir():
        file.unlink()
    again = IdcIndexCatalog(tmp_path / "index", fetch=True, fetched=kept)
    for one in (catalog, again):
        selection = select_cohort("select_idc_series", one, {"slice_thickness_max": 1.5})
        assert [(s.series_instance_uid, s.geometry_known) for s in selection.cohort.series] == [("1.2.1", True)]
        assert {r["series_instance_uid"]: r["reasons"] for r in selection.excluded.to_pylist()} == {
            "1.2.0": ["ONE_SLICE"],
            "1.2.2": ["SLICE_THICKNESS"],
            "1.2.3": ["NOT_ORTHOGONAL", "MULTI_MATRIX", "SLICE_THICKNESS"],
        }


def test_the_thinnest_series_of_a_study_where_the_index_tells(release: Path, tmp_path: Path) -> None:
    small_index(tmp_path / "index", False)
    geometry_tables(release)
    catalog = IdcIndexCatalog(tmp_path / "index", fetch=True, fetched=tmp_path / "kept")
    for order, kept in (("thinnest", "1.2.1"), ("most_slices", "1.2.2"), ("smallest_uid", "1.2.1")):
        found = select_cohort("select_idc_series", catalog, {"one_per_study": True, "study_order": order})
        assert [s.series_instance_uid for s in found.cohort.series] == [kept], order


def test_without_a_network_the_geometry_is_unknown_and_the_user_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_index(tmp_path / "index", False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        monkeypatch.setenv("CTENRICH_IDC_INDEX_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        catalog = IdcIndexCatalog(tmp_path / "index", fetch=True, fetched=tmp_path / "kept")
    assert len(catalog.notes) == 1
    assert "volume_geometry_index" in catalog.notes[0]
    assert "geometry of series is unknown" in catalog.notes[0]
    selection = select_cohort("select_idc_series", catalog, {})
    assert [s.geometry_known for s in selection.cohort.series] == [False, False, False]
    write_cohort(selection, tmp_path / "c.parquet")
    assert json.loads(lock_path(tmp_path / "c.parquet").read_text())["notes"] == list(catalog.notes)


def test_what_is_not_the_table_is_not_kept(release: Path, tmp_path: Path) -> None:
    small_index(tmp_path / "index", False)
    (release / "volume_geometry_index.parquet").write_text("<html>sign in</html>")
    catalog = IdcIndexCatalog(tmp_path / "index", fetch=True, fetched=tmp_path / "kept")
    assert "not a Parquet file" in catalog.notes[0]
    assert list((tmp_path / "kept").iterdir()) == []


def test_the_address_of_the_tables_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_index(tmp_path / "index", False)
    monkeypatch.setenv("CTENRICH_IDC_INDEX_URL", "file:///etc")
    with pytest.raises(UsageError) as caught:
        IdcIndexCatalog(tmp_path / "index", fetch=True, fetched=tmp_path / "kept")
    assert caught.value.reason is Reason.BAD_PARAMETER


# ---------------------------------------------------------------- what to cite


@pytest.mark.data
def test_the_lock_holds_full_references_and_licences(tmp_path: Path) -> None:
    need_package("idc", "idc_index_data")
    selection = select_cohort(
        "select_idc_series", open_catalog("idc"), {"collections": ["nsclc_radiomics"], "patients": ["LUNG1-001"]}
    )
    write_cohort(selection, tmp_path / "c.parquet")
    terms = json.loads(lock_path(tmp_path / "c.parquet").read_text())["collections"]["nsclc_radiomics"]
    assert terms["licences"] == ["CC BY-NC 3.0"]
    (cite,) = terms["cite"]
    assert cite["doi"] == "10.7937/k9/tcia.2015.pf0m9rei"
    assert cite["reference"].startswith("Aerts, H. J. W. L., Wee, L., ")
    assert "(2019). Data From NSCLC-Radiomics (Version 4) [Data set]" in cite["reference"]
    assert "<" not in cite["reference"]
    assert cite["license_url"] == "https://creativecommons.org/licenses/by-nc/3.0/"


def test_every_series_of_the_index_can_be_cited_offline() -> None:
    need_package("idc", "idc_index_data")
    from ctenrich.catalog.citations import citations_of

    dois = [
        row[0] for row in IdcIndexCatalog().connection.execute("SELECT DISTINCT source_DOI FROM idc_index").fetchall()
    ]
    found = citations_of(dois)
    assert len(found) == len(set(dois)) > 200
    assert [c.doi for c in found if not c.text] == []
    (unknown,) = citations_of(["10.1234/none"])
    assert (unknown.url, unknown.text) == ("https://doi.org/10.1234/none", "")

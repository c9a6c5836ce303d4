"""The idc catalog on the index that pip installs: published series, unknown and known geometry."""

from __future__ import annotations

import csv
from pathlib import Path

import duckdb
import pytest
from tests.conftest import need_package

from ctenrich.catalog.idc_index import IdcIndexCatalog
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.select import select_cohort, select_series_list

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

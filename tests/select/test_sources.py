"""What a user has becomes a cohort file: folders, catalogs, collections, lists, and inputs that are none of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.cohorts import TINY, write_series

from ctenrich.errors import CtenrichError, UsageError
from ctenrich.phantom import Quirk, write_phantom_study
from ctenrich.reasons import Reason
from ctenrich.select.cohort_file import read_cohort
from ctenrich.select.sources import make_cohort


def refused(source: object, folder: Path) -> CtenrichError:
    with pytest.raises(CtenrichError) as caught:
        make_cohort(str(source), folder)
    return caught.value


def test_a_folder_is_indexed_and_its_series_are_selected_with_reasons_for_the_others(tmp_path: Path) -> None:
    uids = write_series(tmp_path / "ct", 3, quirks=[Quirk.MISSING_SLICE])
    found = make_cohort(str(tmp_path / "ct"), tmp_path / "out")
    assert [s.series_instance_uid for s in read_cohort(found.path).series] == sorted(uids[1:])
    assert (found.selected, found.excluded) == (2, (("MISSING_SLICE", 1),))
    assert str(found).startswith("2 of 3 series selected; excluded: MISSING_SLICE 1")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "catalog.duckdb", "cohort.parquet", "cohort.excluded.parquet", "cohort.lock.json",
    }  # fmt: skip


def test_the_same_folder_gives_the_same_cohort_again(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 1)
    first = read_cohort(make_cohort(str(tmp_path / "ct"), tmp_path / "out").path)
    assert read_cohort(make_cohort(str(tmp_path / "ct"), tmp_path / "out").path) == first


def test_a_cohort_file_is_used_as_it_is(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 1)
    made = make_cohort(str(tmp_path / "ct"), tmp_path / "out").path
    assert make_cohort(str(made), tmp_path / "other").path == made
    assert not (tmp_path / "other").exists()


def test_a_catalog_and_a_list_of_its_series(tmp_path: Path) -> None:
    uids = write_series(tmp_path / "ct", 2)
    make_cohort(str(tmp_path / "ct"), tmp_path / "out")
    catalog = f"folder:{tmp_path / 'out' / 'catalog.duckdb'}"
    assert make_cohort(catalog, tmp_path / "a").selected == 2
    (tmp_path / "list.csv").write_text(f"SeriesInstanceUID\n{uids[0]}\n1.2.3\n")
    found = make_cohort(str(tmp_path / "list.csv"), tmp_path / "b", catalog=catalog)
    assert (found.selected, found.excluded) == (1, (("NOT_IN_CATALOG", 1),))


def test_a_patient_of_a_public_collection(tmp_path: Path) -> None:
    pytest.importorskip("idc_index_data")
    found = make_cohort("idc:nsclc_radiomics/LUNG1-001", tmp_path / "out")
    (entry,) = read_cohort(found.path).series
    assert (entry.collection_id, entry.patient_id) == ("nsclc_radiomics", "LUNG1-001")
    assert any("geometry" in note for note in found.notes)


def test_a_collection_that_does_not_exist(tmp_path: Path) -> None:
    pytest.importorskip("idc_index_data")
    error = refused("idc:no_such_collection", tmp_path / "out")
    assert error.reason is Reason.EMPTY_COHORT
    assert "spelling" in error.hint


@pytest.mark.parametrize("source", ["idc:", "idc:nsclc_radiomics/", "idc"])
def test_half_a_collection(tmp_path: Path, source: str) -> None:
    assert refused(source, tmp_path / "out").reason is Reason.BAD_PARAMETER


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nii", "CT.NRRD", "ct.mha"])
def test_images_without_dicom_are_refused_with_what_is_possible(tmp_path: Path, name: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / name).write_bytes(b"\0" * 400)
    for source in (tmp_path / "images" / name, tmp_path / "images"):
        error = refused(source, tmp_path / "out")
        assert error.reason is Reason.BAD_PARAMETER
        assert "DICOM" in error.message
        assert "give the DICOM series" in error.hint


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert refused(tmp_path / "images", tmp_path / "out").reason is Reason.EMPTY_INPUT


@pytest.mark.parametrize("source", ["no/such/folder", "folder:", "gs://bucket/ct"])
def test_what_is_not_there(tmp_path: Path, source: str) -> None:
    error = refused(source, tmp_path / "out")
    assert isinstance(error, UsageError)
    assert error.reason is Reason.NOT_FOUND
    assert "idc:COLLECTION" in error.hint


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "notes.docx").write_bytes(b"PK")
    assert refused(tmp_path / "notes.docx", tmp_path / "out").reason is Reason.BAD_PARAMETER


def test_results_are_never_below_the_images(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", 1)
    error = refused(tmp_path / "ct", tmp_path / "ct" / "run" / "input")
    assert error.reason is Reason.BAD_PARAMETER
    assert "inside the folder of images" in error.message


def test_the_folder_of_a_run_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    error = refused(tmp_path / "run", tmp_path / "out")
    assert error.reason is Reason.BAD_PARAMETER
    assert "ctenrich run run/cohort.parquet --out run" in error.hint
    assert not (tmp_path / "out").exists()


def test_a_folder_whose_series_all_fail_names_the_reasons(tmp_path: Path) -> None:
    write_phantom_study(tmp_path / "ct", replace(TINY, quirks=frozenset({Quirk.LOCALIZER})))
    error = refused(tmp_path / "ct", tmp_path / "out")
    assert error.reason is Reason.EMPTY_COHORT
    assert "0 of 1 series selected; excluded: LOCALIZER 1" in error.message


def test_inputs_that_are_one_step_from_a_folder_of_dicom_files(tmp_path: Path) -> None:
    archive, single, empty = tmp_path / "ct.zip", tmp_path / "IM0001", tmp_path / "empty"
    archive.write_bytes(b"PK")
    single.write_bytes(bytes(128) + b"DICM" + bytes(8))
    empty.mkdir()
    assert "unpack it" in refused(archive, tmp_path / "out").hint
    assert "give the folder" in refused(single, tmp_path / "out").hint
    assert refused(empty, tmp_path / "out").message == f"{empty} is empty"

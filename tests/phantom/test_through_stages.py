"""Phantoms through fetch, sort, convert and the expert segmenter: the truth comes back, faults get their reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctenrich.contours.expert import ExpertSegmenter
from ctenrich.errors import CtenrichError
from ctenrich.masks import full_mask
from ctenrich.phantom import (
    ORIENTATIONS,
    SEGMENTS,
    FileOrder,
    PhantomOptions,
    PhantomStudy,
    PixelEncoding,
    Quirk,
    write_phantom_study,
)
from ctenrich.reasons import Reason
from ctenrich.records import Companion, CompanionLink, Instance, SeriesEntry, SortedSeries, Volume
from ctenrich.settings import Settings
from ctenrich.stages.convert import convert_series
from ctenrich.stages.fetch import fetch_series
from ctenrich.stages.sort import sort_series
from ctenrich.workspace import Workspace, load_array

SMALL = PhantomOptions(rows=60, columns=72, pixel_spacing=(6.5, 5.5), slices=16, slice_spacing=20.0, rtstruct=True)
SETTINGS = Settings()


def entry_of(study: PhantomStudy) -> SeriesEntry:
    options = study.phantom.options
    companions = ()
    if study.rtstruct is not None:
        instance = Instance("", study.rtstruct.as_uri())
        companions = (Companion("RTSTRUCT", "2.25.9", instance, CompanionLink.REFERENCE),)
    return SeriesEntry(
        collection_id="phantoms",
        patient_id=options.patient_id,
        study_instance_uid=study.study_instance_uid,
        series_instance_uid=study.series_instance_uid,
        instances=tuple(Instance("", path.as_uri()) for path in study.files),
        companions=companions,
    )


def converted(study: PhantomStudy, workspace: Workspace) -> tuple[Volume, SortedSeries]:
    fetched = fetch_series(entry_of(study), settings=SETTINGS, workspace=workspace)
    series = sort_series(fetched, settings=SETTINGS, workspace=workspace)
    return convert_series(series, settings=SETTINGS, workspace=workspace), series


def check_truth(study: PhantomStudy, workspace: Workspace) -> None:
    """The volume is the phantom's array on its grid, and the expert's masks are its truth."""
    volume, series = converted(study, workspace)
    uid = study.series_instance_uid
    assert series.sop_instance_uids == study.sop_instance_uids
    assert np.array_equal(load_array(workspace.resolve(uid, volume.array_path)), study.phantom.array)
    assert np.allclose(np.array(volume.affine_lps), study.phantom.affine_lps, atol=1e-4)
    masks = ExpertSegmenter().segment({"CT": volume}, series, settings=SETTINGS, workspace=workspace)
    numbers = {segment.name: segment.number for segment in masks.segments}
    assert set(numbers) == set(SEGMENTS)
    for name, truth in study.phantom.masks.items():
        assert np.array_equal(full_mask(masks, numbers[name], workspace).astype(bool), truth), name


@pytest.mark.parametrize("name", sorted(ORIENTATIONS))
def test_the_truth_comes_back_in_every_orientation(tmp_path: Path, workspace: Workspace, name: str) -> None:
    options = SMALL.oriented(name, voxel=(7.0, 6.0, 10.0)).changed(file_order=FileOrder.SHUFFLED_NUMBERS)
    check_truth(write_phantom_study(tmp_path / "dicom", options), workspace)


def test_the_truth_comes_back_from_an_oblique_volume(tmp_path: Path, workspace: Workspace) -> None:
    row, column = (0.96, 0.28, 0.0), (-0.28 * 0.8, 0.96 * 0.8, 0.6)
    check_truth(write_phantom_study(tmp_path, SMALL.changed(row_cosines=row, column_cosines=column)), workspace)


@pytest.mark.parametrize("encoding", PixelEncoding)
def test_the_truth_comes_back_from_every_transfer_syntax(
    tmp_path: Path, workspace: Workspace, encoding: PixelEncoding
) -> None:
    check_truth(write_phantom_study(tmp_path, SMALL.changed(encoding=encoding)), workspace)


@pytest.mark.parametrize(
    "quirk", [Quirk.UNSIGNED, Quirk.NO_IMAGE_TYPE, Quirk.SECONDARY, Quirk.NO_PREAMBLE, Quirk.DUPLICATE_FILE]
)
def test_harmless_quirks_change_nothing(tmp_path: Path, workspace: Workspace, quirk: Quirk) -> None:
    check_truth(write_phantom_study(tmp_path, SMALL.with_quirks(quirk)), workspace)


FAULTS = {
    Quirk.LOCALIZER: {Reason.LOCALIZER},
    Quirk.MISSING_SLICE: {Reason.MISSING_SLICE},
    Quirk.ALTERNATING_SPACING: {Reason.IRREGULAR_SPACING},
    Quirk.LATERAL_DRIFT: {Reason.LATERAL_DRIFT},
    Quirk.CONFLICTING_DUPLICATE: {Reason.CONFLICTING_DUPLICATE},
    Quirk.SAME_POSITION: {Reason.DUPLICATE_POSITION},
    Quirk.TWO_ORIENTATIONS: {Reason.MULTI_ORIENTATION},
    Quirk.OTHER_PIXEL_SPACING: {Reason.MULTI_PIXEL_SPACING},
    Quirk.OTHER_MATRIX: {Reason.MULTI_MATRIX},
    Quirk.OTHER_FRAME_OF_REFERENCE: {Reason.MULTI_FRAME_OF_REFERENCE},
    Quirk.DERIVED: {Reason.DERIVED_REFORMATTED},
    Quirk.ONE_SLICE: {Reason.ONE_SLICE},
    Quirk.TRUNCATED: {Reason.TRUNCATED},
    Quirk.LYING_ROWS: {Reason.MULTI_MATRIX, Reason.TRUNCATED, Reason.DECOMPRESSION_BOMB},
    Quirk.MIXED_MODALITY: {Reason.MIXED_SERIES, Reason.NOT_CT},
    Quirk.NO_POSITION: {Reason.MISSING_GEOMETRY},
    Quirk.ZERO_SPACING: {Reason.ZERO_SPACING},
    Quirk.ENHANCED: {Reason.MULTIFRAME},
}


@pytest.mark.parametrize("quirk", sorted(FAULTS))
def test_every_fault_gets_its_reason(tmp_path: Path, workspace: Workspace, quirk: Quirk) -> None:
    study = write_phantom_study(tmp_path, SMALL.with_quirks(quirk).changed(rtstruct=False))
    with pytest.raises(CtenrichError) as caught:
        converted(study, workspace)
    assert caught.value.reason in FAULTS[quirk]


def test_gantry_tilt_gets_its_reason(tmp_path: Path, workspace: Workspace) -> None:
    with pytest.raises(CtenrichError) as caught:
        converted(write_phantom_study(tmp_path, SMALL.changed(gantry_tilt=15.0, rtstruct=False)), workspace)
    assert caught.value.reason is Reason.LATERAL_DRIFT

"""Masks of a run as RT Structure Sets: drawn again, referred to, coded, valid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
import pytest
from tests.support import encode_cases as cases

from ctenrich.contours.raster import grid_of, rasterise
from ctenrich.contours.rtstruct import link_to, load_contours
from ctenrich.encode.rtstruct import StructureSetOptions
from ctenrich.errors import InputError
from ctenrich.masks import full_mask
from ctenrich.publish import structure_sets
from ctenrich.publish.structure_sets import StructureSetFile, export_structure_sets, names_of_tg263
from ctenrich.reasons import Reason
from ctenrich.records import CompanionLink, SegmentMasks, Severity, SortedSeries
from ctenrich.series_store import SeriesStore
from ctenrich.settings import Settings
from ctenrich.validate.dciodvfy import run_dciodvfy
from ctenrich.workspace import Workspace

OBLIQUE = cases.Grid(row=(0.8, 0.6, 0.0), column=(-0.6, 0.8, 0.0))


def prepare(folder: Path, workspace: Workspace, grid: cases.Grid | None = None) -> tuple[SortedSeries, SegmentMasks]:
    """A series and masks of a network with a hole in the heart, kept in a run."""
    series, _ = cases.make_series(folder, grid)
    labels = cases.label_map(series.shape)
    labels[3:6, 13:15, 15:18] = 0
    masks = cases.make_masks(series, workspace, labels)
    store = SeriesStore(workspace)
    store.save(series, series.series_instance_uid)
    store.save(masks, series.series_instance_uid, masks.product)
    return series, masks


def export(workspace: Workspace, out: Path, holes: Literal["keyhole", "xor"] = "keyhole") -> StructureSetFile:
    options = StructureSetOptions(holes=holes, names=names_of_tg263())
    (found,) = export_structure_sets(workspace, out, settings=Settings(), options=options)
    return found


@pytest.mark.parametrize("holes", ["keyhole", "xor"])
@pytest.mark.parametrize("grid", [None, OBLIQUE])
def test_contours_enclose_exactly_the_voxels_of_the_masks(
    tmp_path: Path, workspace: Workspace, grid: cases.Grid | None, holes: Literal["keyhole", "xor"]
) -> None:
    series, masks = prepare(tmp_path / "ct", workspace, grid)
    found = export(workspace, tmp_path / "out", holes)
    assert found.path is not None
    assert found.worst_dice == 1.0
    structures = load_contours(found.path)
    assert link_to(structures, series) is CompanionLink.REFERENCE
    for roi, segment in zip(structures.rois, masks.segments, strict=True):
        drawn = rasterise(roi.contours, grid_of(series)).mask if roi.contours else np.zeros(series.shape, bool)
        assert np.array_equal(drawn, full_mask(masks, segment.number, workspace)), segment.name
    assert all(
        contour.image_uids <= set(series.sop_instance_uids) for roi in structures.rois for contour in roi.contours
    )


def test_attributes_of_a_structure_set(tmp_path: Path, workspace: Workspace) -> None:
    series, _ = prepare(tmp_path / "ct", workspace)
    found = export(workspace, tmp_path / "out")
    assert found.path is not None
    ds = pydicom.dcmread(found.path)
    assert [roi.ROIName for roi in ds.StructureSetROISequence] == ["Esophagus", "Heart", "Trachea", "A_Aorta"]
    assert [roi.ROIGenerationAlgorithm for roi in ds.StructureSetROISequence] == ["AUTOMATIC"] * 4
    codes = [o.RTROIIdentificationCodeSequence[0].CodeValue for o in ds.RTROIObservationsSequence]
    assert codes[:2] == ["32849002", "80891009"]
    assert ["ContourSequence" in item for item in ds.ROIContourSequence] == [True, True, False, True]
    assert list(ds.ROIContourSequence[0].ROIDisplayColor) == [26, 113, 217]
    assert (ds.PatientID, ds.StudyInstanceUID) == ("case-1", series.study_instance_uid)
    texts = [str(v) for i in ds.ROIContourSequence for c in i.get("ContourSequence", ()) for v in c.ContourData]
    assert max(map(len, texts)) <= 16
    assert (names_of_tg263()["gtv_1"], names_of_tg263()["lung_left"]) == ("GTV1", "Lung_L")
    first = found.path.read_bytes()
    assert export(workspace, tmp_path / "again").path.read_bytes() == first  # type: ignore[union-attr]


@pytest.mark.parametrize("holes", ["keyhole", "xor"])
def test_a_structure_set_is_valid(tmp_path: Path, workspace: Workspace, holes: Literal["keyhole", "xor"]) -> None:
    prepare(tmp_path / "ct", workspace)
    found = export(workspace, tmp_path / "out", holes)
    assert found.path is not None
    assert [i.message for i in run_dciodvfy(found.path, "rtstruct") if i.severity is Severity.ERROR] == []


def test_contours_that_differ_from_the_masks_are_not_kept(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path / "ct", workspace)
    build = structure_sets.structure_set_of

    def moved(*arguments: object, **options: object) -> pydicom.Dataset:
        ds = build(*arguments, **options)  # type: ignore[arg-type]
        for contour in ds.ROIContourSequence[1].ContourSequence:
            contour.ContourData = [float(v) + (i % 3 == 0) for i, v in enumerate(contour.ContourData)]
        return ds

    monkeypatch.setattr(structure_sets, "structure_set_of", moved)
    found = export(workspace, tmp_path / "out")
    assert (found.reason, found.path) == (Reason.PROOF_FAILED, None)
    assert not list((tmp_path / "out").rglob("*.dcm"))


def test_masks_without_a_voxel_and_runs_without_masks(tmp_path: Path, workspace: Workspace) -> None:
    with pytest.raises(InputError) as caught:
        export(workspace, tmp_path / "out")
    assert caught.value.reason is Reason.NOT_PREPARED
    series, masks = prepare(tmp_path / "ct", workspace)
    empty = replace(masks, segments=tuple(replace(s, voxels=0, box=None) for s in masks.segments))
    SeriesStore(workspace).save(empty, series.series_instance_uid, masks.product)
    assert export(workspace, tmp_path / "out").reason is Reason.EMPTY_SEGMENTATION

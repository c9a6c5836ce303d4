"""Real series with expert contours: contours -> masks -> numbers -> objects -> proof -> validators -> other readers."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from ctenrich.contours.expert import ExpertSegmenter
from ctenrich.dicom.seg import read_seg
from ctenrich.encode.seg import encode_seg
from ctenrich.encode.shape_sr import encode_shape_sr
from ctenrich.masks import full_mask
from ctenrich.records import Severity
from ctenrich.settings import Settings
from ctenrich.shape.measure import measure_shape
from ctenrich.stages.convert import convert_series
from ctenrich.tools import find_tool, run_tool
from ctenrich.validate import validate_objects
from tests.conftest import skip_or_fail
from tests.support.contours import sorted_real
from tests.support.proofs import prove_segmentation

SETTINGS = Settings()


def dcmqi(name: str):
    try:
        return find_tool(name)
    except Exception:
        skip_or_fail("dcmqi", f"{name} is not installed")
        raise


@pytest.mark.parametrize("archive", ["LUNG1-005", pytest.param("LUNG1-001", marks=pytest.mark.long)])
def test_the_objects_of_a_real_series_are_proven_valid_and_read_by_others(archive, real_data, workspace, tmp_path):
    series = sorted_real(real_data(archive))
    options = {"settings": SETTINGS, "workspace": workspace}
    volume = convert_series(series, **options)
    masks = ExpertSegmenter().segment({"CT": volume}, series, **options)
    shape = measure_shape(masks, volume, **options)
    seg = encode_seg(masks, volume, series, **options)
    sr = encode_shape_sr(shape, masks, seg, series, **options)
    proof = prove_segmentation(masks, shape, volume, series, (seg, sr), **options)
    assert proof.passed, [c for c in proof.checks if not c.passed]
    paths = [workspace.resolve(series.series_instance_uid, o.path) for o in (seg, sr)]
    issues = validate_objects(paths, settings=SETTINGS, sources=series.sop_instance_uids)
    assert [i for i in issues if i.severity is Severity.ERROR] == []
    _own_reader(paths[0], masks, workspace)
    _dcmqi_readers(paths, masks, workspace, tmp_path)
    if archive == "LUNG1-005":
        referenced = pydicom.dcmread(paths[0]).ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert {i.ReferencedSOPInstanceUID for i in referenced} <= set(series.sop_instance_uids)
        assert len(series.slices) == 91


def _own_reader(path, masks, workspace) -> None:
    decoded = read_seg(path)
    assert len(decoded.segments) == len(masks.segments)


def _dcmqi_readers(paths, masks, workspace, tmp_path) -> None:
    """segimage2itkimage gives the same masks, overlaps included; tid1500reader reads the report."""
    import json

    import SimpleITK

    folder = tmp_path / "itk"
    folder.mkdir()
    arguments = ["--inputDICOM", paths[0], "--outputDirectory", folder, "--outputType", "nrrd", "--prefix", "s"]
    run_tool([dcmqi("segimage2itkimage"), *arguments])
    meta = json.loads((folder / "s-meta.json").read_text())
    attributes = [a for group in meta["segmentAttributes"] for a in group]
    found = {a["labelID"]: a["SegmentLabel"] for a in attributes}
    assert sorted(found.values()) == sorted(s.name for s in masks.segments if not s.absent)
    images = sorted(folder.glob("s-*.nrrd"))
    voxels = 0
    for image in images:
        voxels += int(np.count_nonzero(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(image)))))
    assert voxels == sum(int(full_mask(masks, s.number, workspace).sum()) for s in masks.segments)
    out = tmp_path / "sr.json"
    run_tool([dcmqi("tid1500reader"), "--inputDICOM", paths[1], "--outputMetadata", out])
    groups = json.loads(out.read_text())["Measurements"]
    assert len(groups) == len(masks.segments)

"""Parametric maps as NIfTI and NRRD: the same values at the same positions, with quantity and unit beside them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from tests.support.map_cases import SHAPE, by_highdicom, small_sources

from ctenrich.errors import InputError
from ctenrich.publish.export import export_objects
from ctenrich.records import State


@pytest.mark.parametrize("kind", [np.float32, np.uint16])
def test_values_and_positions_are_those_of_the_object(kind: type, tmp_path: Path) -> None:
    stored = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(kind)
    slope = 1.0 if kind is np.float32 else 0.5
    sources = small_sources(tmp_path / "ct")
    (tmp_path / "given").mkdir()
    by_highdicom(sources, stored, slope).save_as(tmp_path / "given" / "pm.dcm")
    for fmt in ("nifti", "nrrd"):
        found = export_objects([tmp_path / "given"], fmt, tmp_path / fmt)
        assert [(item.state, item.kind) for item in found.objects] == [(State.DONE, "Parametric Map Storage")]
        image = SimpleITK.ReadImage(str(found.files[0]))
        array = SimpleITK.GetArrayFromImage(image)
        assert array.dtype == (np.float32 if kind is np.float32 else np.float64)
        assert np.array_equal(array, stored * slope)
        for k in (0, SHAPE[0] - 1):
            there = image.TransformIndexToPhysicalPoint((0, 0, k))
            np.testing.assert_allclose(there, sources[k].ImagePositionPatient, atol=1e-4)
        described = json.loads(found.files[1].read_text("utf-8"))
        assert (described["quantity"]["value"], described["unit"]["value"]) == ("113041", "mm2/s")
        assert described["voxels_without_value"] == 0
    assert nibabel.load(tmp_path / "nifti" / "pm" / "map.nii.gz").dataobj.slope == 1
    with pytest.raises(InputError, match="1 Parametric Map Storage"):
        export_objects([tmp_path / "given"], "dcmqi", tmp_path / "dcmqi")

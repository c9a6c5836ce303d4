"""LUNG1-002 under a pseudonym: the same masks and doses, and references that resolve as before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from tests.support.contours import sorted_real

from ctenrich.contours.raster import grid_of, rasterise
from ctenrich.contours.rtstruct import load_contours
from ctenrich.dicom.quiet import quiet
from ctenrich.dose.reader import read_dose
from ctenrich.dose.structures import VOXEL_CENTRES, DoseOptions, structure_doses
from ctenrich.pseudonymise.folder import pseudonymise_folder
from ctenrich.pseudonymise.key import Key
from ctenrich.pseudonymise.object_file import Rules
from ctenrich.pseudonymise.words import vocabulary

KEY = Key(secret=bytes(32))
ROIS = ("GTV-1", "Spinal cord", "Esophagus")


def measured(folder: Path) -> dict[str, Any]:
    """Masks and dose metrics of some ROIs, and everything that refers to another object."""
    found = {}
    for path in folder.rglob("*.dcm"):
        found[str(pydicom.dcmread(path, specific_tags=["Modality"], stop_before_pixels=True).Modality)] = path
    structures, grid = load_contours(found["RTSTRUCT"]), grid_of(sorted_real(folder))
    options = DoseOptions(rois=ROIS, rule=VOXEL_CENTRES, bounds=False, second=False)
    doses = structure_doses(structures, read_dose(found["RTDOSE"]), options, grid=grid)
    return {
        "masks": {roi.name: rasterise(roi.contours, grid).mask for roi in structures.rois if roi.name in ROIS},
        "doses": {one.name: [value.value for value in one.values] for one in doses},
        "names": [roi.name for roi in structures.rois],
        "uids": uids_of(*(found[name] for name in ("RTSTRUCT", "RTPLAN", "RTDOSE"))),
    }


def uids_of(*paths: Path) -> list[str]:
    """All UIDs of objects, in the order of the elements."""
    found: list[str] = []
    for path in paths:
        with quiet():
            elements = list(pydicom.dcmread(path, stop_before_pixels=True).iterall())
        found += [str(one.value) for one in elements if one.VR == "UI" and "Class" not in one.keyword]
    return found


@pytest.mark.long
@pytest.mark.data
def test_lung1_002_has_the_same_masks_and_doses(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    source = real_data("LUNG1-002-RT")
    result = pseudonymise_folder(source, tmp_path / "out", Rules(key=KEY, words=vocabulary()))
    assert (result.summary.written, dict(result.summary.refused)) == (114, {})
    before, after = measured(source), measured(tmp_path / "out")
    assert after["names"] == before["names"]
    assert set(before["masks"]) == set(ROIS)
    for name, mask in before["masks"].items():
        assert np.array_equal(after["masks"][name], mask), name
        assert mask.any()
    assert after["doses"] == before["doses"]
    assert after["uids"] == [KEY.uid(uid) for uid in before["uids"]]
    for path in (tmp_path / "out").rglob("*.dcm"):
        assert b"LUNG1" not in path.read_bytes()

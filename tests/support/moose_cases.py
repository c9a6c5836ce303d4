"""Cases for which MOOSE 3.2.2 itself was run (scripts/make_moose_golden.py)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.support.totalsegmentator_models import phantom

FOLDERS = {
    "clin_ct_cardiac": ("Dataset888_Cardiac", 13, (2.9, 2.5, 2.5), ("0", "1")),
    "clin_ct_body": ("Dataset001_body", 4, (6.0, 4.0, 4.0), ("0",)),
    "clin_ct_fast_vertebrae": ("Dataset112_FastVertebrae", 28, (5.0, 4.0, 4.0), ("0",)),
    "clin_ct_body_composition": ("Dataset778_Body_composition", 3, (3.0, 3.0, 3.0), ("0",)),
}
"""Model -> folder, labels, spacing (z, y, x) of the plan, folds."""
TRAINER = "nnUNetTrainer__nnUNetPlans__3d_fullres"
PATCH = (16, 24, 24)
SEEDS = {"clin_ct_fast_vertebrae": 224, "clin_ct_body_composition": 300}


@dataclass(frozen=True, kw_only=True)
class MooseCase:
    """One model on one stack (see `totalsegmentator_cases.affine_ras`)."""

    name: str
    model: str
    stack: str = "axial"
    shape: tuple[int, int, int] = (24, 28, 30)
    long: bool = False

    @property
    def image(self) -> NDArray[np.int16]:
        """The volume [k, j, i]."""
        return phantom(self.shape)


CASES = (
    MooseCase(name="cardiac", model="clin_ct_cardiac"),
    MooseCase(name="cardiac-oblique", model="clin_ct_cardiac", stack="oblique", long=True),
    MooseCase(name="cardiac-coronal", model="clin_ct_cardiac", stack="coronal", long=True),
    MooseCase(name="body-pieces", model="clin_ct_body", stack="reversed", shape=(8, 12, 302), long=True),
    MooseCase(name="body-long", model="clin_ct_body", stack="lps", shape=(8, 12, 760), long=True),
    MooseCase(name="composition", model="clin_ct_body_composition", shape=(36, 28, 30)),
)
"""`body-pieces` is resampled in two blocks of 151 voxels; `body-long` in five blocks, and segmented in two pieces."""

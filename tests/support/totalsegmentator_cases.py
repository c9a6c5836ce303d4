"""Cases for which TotalSegmentator 2.18.0 itself was run (scripts/make_totalsegmentator_golden.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.totalsegmentator_models import phantom

SHAPE = (36, 44, 48)
SPACING = (2.6, 2.1, 2.1)
"""Of the slices, rows and columns, mm."""


@dataclass(frozen=True, kw_only=True)
class PeerCase:
    """One task on one stack."""

    name: str
    task: str
    mode: str = ""
    stack: str = "axial"
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of TotalSegmentator's Python function."""
    ours: dict[str, Any] = field(default_factory=dict)
    """The same, as `ctenrich.recipes.totalsegmentator.TaskOptions`."""
    long: bool = False
    shape: tuple[int, int, int] = SHAPE

    @property
    def image(self) -> NDArray[np.int16]:
        """The volume [k, j, i]."""
        return phantom(self.shape)


CASES = (
    PeerCase(name="fastest", task="total", mode="fastest"),
    PeerCase(name="fastest-oblique", task="total", mode="fastest", stack="oblique"),
    PeerCase(name="fastest-coronal", task="total", mode="fastest", stack="coronal"),
    PeerCase(name="fastest-feet-first", task="total", mode="fastest", stack="feet-first"),
    PeerCase(name="fastest-reversed", task="total", mode="fastest", stack="reversed"),
    PeerCase(name="fast", task="total", mode="fast", stack="oblique"),
    PeerCase(name="total", task="total", long=True),
    PeerCase(
        name="roi",
        task="total",
        stack="coronal",
        options={"roi_subset": ["liver", "spleen"]},
        ours={"roi": ("liver", "spleen")},
    ),
    PeerCase(
        name="roi-robust",
        task="total",
        options={"roi_subset_robust": ["heart", "liver"]},
        ours={"roi": ("heart", "liver"), "robust_crop": True},
        long=True,
    ),
    PeerCase(name="body", task="body", stack="reversed"),
    PeerCase(name="body-fast", task="body", mode="fast"),
    PeerCase(name="kidney-cysts", task="kidney_cysts", stack="oblique"),
    PeerCase(name="liver-vessels", task="liver_vessels", stack="feet-first"),
    PeerCase(name="vertebrae", task="vertebrae_pp"),
    PeerCase(name="vertebrae-refined", task="vertebrae_pp_refined", stack="lps", long=True),
    PeerCase(name="split", task="vertebrae_body", options={"force_split": True}, ours={"split": True}, long=True),
    PeerCase(
        name="small",
        task="trunk_cavities",
        options={"remove_small_blobs": True},
        ours={"small": 200.0},
        stack="coronal",
    ),
    PeerCase(name="abdominal-muscles", task="abdominal_muscles", stack="oblique", long=True),
    PeerCase(name="heart-chambers", task="heartchambers_highres", stack="oblique"),
    PeerCase(name="teeth", task="teeth", shape=(16, 20, 20), long=True),
)

CASES_1 = (
    PeerCase(name="v1-fast", task="total", mode="fast"),
    PeerCase(name="v1-fast-oblique", task="total", mode="fast", stack="oblique"),
    PeerCase(name="v1-fast-coronal", task="total", mode="fast", stack="coronal"),
    PeerCase(name="v1-fast-reversed", task="total", mode="fast", stack="reversed"),
    PeerCase(
        name="v1-split", task="total", mode="fast", stack="tall", options={"force_split": True}, ours={"split": True}
    ),
    PeerCase(name="v1-total", task="total", stack="feet-first", long=True),
)
"""Cases for which TotalSegmentator 1.5.6 was run (scripts/make_totalsegmentator1_golden.py)."""

TASKS_1 = (
    ("Task251_TotalSegmentator_part1_organs_1139subj", "nnUNetTrainerV2_ep4000_nomirror", 17, 1.5, 251),
    ("Task252_TotalSegmentator_part2_vertebrae_1139subj", "nnUNetTrainerV2_ep4000_nomirror", 24, 1.5, 252),
    ("Task253_TotalSegmentator_part3_cardiac_1139subj", "nnUNetTrainerV2_ep4000_nomirror", 18, 1.5, 253),
    ("Task254_TotalSegmentator_part4_muscles_1139subj", "nnUNetTrainerV2_ep4000_nomirror", 21, 1.5, 254),
    ("Task255_TotalSegmentator_part5_ribs_1139subj", "nnUNetTrainerV2_ep4000_nomirror", 24, 1.5, 255),
    ("Task256_TotalSegmentator_3mm_1139subj", "nnUNetTrainerV2_ep8000_nomirror", 104, 3.0, 256),
)
"""Folder, trainer, number of labels, spacing and number of the data sets of version 1."""

PLAN_SPACINGS = {8: (1.5, 2.4, 2.4), 301: (2.4, 2.0, 2.0)}
"""Spacing (z, y, x) of the plans of data sets whose task does not resample; of others it is the task's."""


def image() -> NDArray[np.int16]:
    """The volume [k, j, i] of all cases without a shape of their own."""
    return phantom(SHAPE)


def affine_ras(stack: str) -> NDArray[np.float64]:
    """(i, j, k, 1) -> mm, RAS."""
    dz, dy, dx = SPACING
    out = np.eye(4)
    axial = np.diag([-dx, dy, dz])  # LAS, as a DICOM series becomes in TotalSegmentator
    matrices = {
        "axial": axial,
        "lps": np.diag([-dx, -dy, dz]),
        "tall": np.diag([-dx, dy, 2.5 * dz]),
        "reversed": np.diag([-dx, -dy, -dz]),
        "feet-first": np.diag([dx, -dy, -dz]),
        "coronal": np.array([[-dx, 0, 0], [0, 0, dz], [0, -dy, 0]]),
        "oblique": _rotation(0.31, 0.17) @ axial,
    }
    out[:3, :3] = matrices[stack]
    out[:3, 3] = (31.5, -120.25, 7.0)
    return out


def _rotation(about_x: float, about_z: float) -> NDArray[np.float64]:
    c, s, d, t = np.cos(about_x), np.sin(about_x), np.cos(about_z), np.sin(about_z)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array([[d, -t, 0], [t, d, 0], [0, 0, 1]])

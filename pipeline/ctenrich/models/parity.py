"""The parity gate: compare the label maps of two engines for one volume, organ by organ, worst case first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import UsageError
from ctenrich.inference.registry import resolve_model
from ctenrich.masks import bounding_box, dice_of_counts, surface_dice
from ctenrich.nnunet.conventions import Conventions, stated_conventions
from ctenrich.nnunet.segmenter import open_nnunet
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Matrix4
from ctenrich.settings import Settings
from ctenrich.tools import need_package

__all__ = [
    "Case",
    "OrganParity",
    "ParityLimits",
    "ParityOptions",
    "ParityReport",
    "cases_of",
    "check_model",
    "compare_labels",
]

Shapes = Mapping[str, float]


@dataclass(frozen=True)
class Case:
    """One volume to compare on."""

    name: str
    array: NDArray[Any]
    """[k, j, i], HU."""
    affine_lps: Matrix4
    spacing: tuple[float, float, float]
    """Along (k, j, i), mm."""


@dataclass(frozen=True)
class OrganParity:
    """Difference of two label maps for one organ of one volume."""

    case: str
    organ: str
    voxels: int
    """Of the reference."""
    different: int
    """Voxels that only one of the two label maps assigns to this organ."""
    dice: float
    nsd: float
    """Normalised surface Dice at 1 mm."""
    volume: float
    """Relative difference of the volumes."""
    shapes: float
    """Largest relative difference of a shape feature."""
    same_presence: bool
    """Whether both find the organ, or neither."""


@dataclass(frozen=True)
class ParityLimits:
    """Limits of the parity gate."""

    disagreement: float = 1e-6
    """Share of all voxels of a volume."""
    dice: float = 0.9999


@dataclass(frozen=True)
class ParityReport:
    """All comparisons of a model's two engines."""

    model: str
    rows: tuple[OrganParity, ...]
    noise: tuple[OrganParity, ...]
    """The reference against itself, run twice: the noise to compare with."""
    disagreement: Mapping[str, float] = field(default_factory=dict)
    """Case -> share of voxels whose labels differ."""
    limits: ParityLimits = ParityLimits()

    @property
    def passed(self) -> bool:
        """Whether every organ of every volume is within the limits."""
        organs = all(r.same_presence and r.dice >= self.limits.dice for r in self.rows)
        return bool(self.rows) and organs and max(self.disagreement.values()) <= self.limits.disagreement

    def table(self) -> tuple[dict[str, str], ...]:
        """One row per organ, the worst case over the volumes, as text."""
        return tuple(
            _worst_case(organ, [r for r in self.rows if r.organ == organ]) for organ in _organ_names(self.rows)
        )

    def noise_table(self) -> tuple[dict[str, str], ...]:
        """The same for the reference against itself."""
        return tuple(
            _worst_case(organ, [r for r in self.noise if r.organ == organ]) for organ in _organ_names(self.noise)
        )


def _organ_names(rows: Iterable[OrganParity]) -> list[str]:
    return list(dict.fromkeys(r.organ for r in rows))


def _worst_case(organ: str, rows: Sequence[OrganParity]) -> dict[str, str]:
    dice = [r.dice for r in rows]
    return {
        "organ": organ,
        "volumes": str(len(rows)),
        "different voxels": str(max(r.different for r in rows)),
        "Dice min": f"{min(dice):.6f}",
        "Dice 5th percentile": f"{float(np.percentile(dice, 5)):.6f}",
        "NSD 1 mm min": f"{min(r.nsd for r in rows):.6f}",
        "volume max": f"{max(abs(r.volume) for r in rows):.1e}",
        "shape features max": f"{max(r.shapes for r in rows):.1e}",
        "same presence": "yes" if all(r.same_presence for r in rows) else "NO",
    }


def compare_labels(
    ours: NDArray[Any],
    theirs: NDArray[Any],
    spacing: tuple[float, float, float],
    names: Mapping[int, str],
    case: str = "",
) -> tuple[OrganParity, ...]:
    """Compare two label maps of one grid, organ by organ.

    Parameters
    ----------
    ours, theirs : array, [k, j, i]
        Label values; `theirs` is the reference.
    spacing : (k, j, i), mm
    names : mapping of int to str
        Label value -> organ.
    case : str
        Name of the volume, for the rows.

    Returns
    -------
    tuple of OrganParity
        One per organ, in the order of `names`.
    """
    return tuple(_compare_organ(ours == value, theirs == value, spacing, name, case) for value, name in names.items())


def _compare_organ(
    a: NDArray[np.bool_], b: NDArray[np.bool_], spacing: tuple[float, float, float], name: str, case: str
) -> OrganParity:
    count_a, count_b = int(a.sum()), int(b.sum())
    different = int((a ^ b).sum())
    if different == 0:
        return OrganParity(case, name, count_b, 0, 1.0, 1.0, 0.0, 0.0, same_presence=True)
    dice = dice_of_counts(int((a & b).sum()), count_a, count_b) or 0.0
    if not count_a or not count_b:
        return OrganParity(case, name, count_b, different, dice, 0.0, 1.0, float("inf"), same_presence=False)
    box = bounding_box(a | b)
    assert box is not None
    grown = tuple(slice(max(0, x - 2), y + 2) for x, y in ((box.k0, box.k1), (box.j0, box.j1), (box.i0, box.i1)))
    a, b = a[grown], b[grown]
    shapes = _largest_difference(_pyradiomics_shape(a, spacing), _pyradiomics_shape(b, spacing))
    nsd = surface_dice(a, b, spacing, 1.0) or 0.0
    return OrganParity(case, name, count_b, different, dice, nsd, count_a / count_b - 1, shapes, same_presence=True)


def _pyradiomics_shape(mask: NDArray[np.bool_], spacing: tuple[float, float, float]) -> Shapes:
    """Pyradiomics' 14 shape features of a mask."""
    import logging
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import SimpleITK
        from radiomics import shape

        logging.getLogger("radiomics").setLevel(logging.ERROR)
        image: Any = SimpleITK.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
        image.SetSpacing([float(s) for s in spacing[::-1]])
        found = shape.RadiomicsShape(image, image, label=1)
        found.enableAllFeatures()
        return {name: float(value) for name, value in found.execute().items()}


def _largest_difference(a: Shapes, b: Shapes) -> float:
    return max(abs(a[k] - b[k]) / max(abs(b[k]), 1e-12) for k in b if np.isfinite(b[k]))


@dataclass(frozen=True, kw_only=True)
class ParityOptions:
    """Choice of configuration and folds, and the limits of a parity check."""

    configuration: str | None = None
    """Needed where the model has several."""
    folds: tuple[str, ...] | None = None
    """By default all."""
    mirror: bool = True
    repeat: bool = True
    """Run the reference twice, for its own noise."""
    limits: ParityLimits = ParityLimits(1e-4, 0.999)
    """By default those for the unmodified predictor, which gathers in half precision."""
    conventions: Conventions | None = None
    """Axes and step; by default those that are stated, and LPS where none are: both engines get the same array."""
    predictor: Any = None
    """A subclass of nnunetv2's predictor for the reference; None: the unmodified one."""


def check_model(
    model: str,
    cases: Iterable[Case],
    *,
    settings: Settings,
    options: ParityOptions | None = None,
    progress: Progress = SILENT,
) -> ParityReport:
    """Run a model with both engines on some volumes and compare (``ctenrich models check MODEL --reference``).

    Parameters
    ----------
    model : str
        Name or folder of an nnU-Net v2 model.
    cases : iterable of Case
        One or more.
    settings : Settings
        `segment` without its engine.
    options : ParityOptions, optional
    progress : Progress

    Returns
    -------
    ParityReport
        One row per organ and volume; `passed` compares them with the limits.

    Raises
    ------
    UsageError
        EMPTY_INPUT without a case; BAD_SETTINGS; MISSING_EXTRA without nnunetv2 or pyradiomics.
    ModelError
        As `open_nnunet`.
    """
    need_package("nnunetv2", extra="reference", purpose="the comparison with nnunetv2")
    need_package("radiomics", extra="reference", purpose="the comparison of shapes")
    chosen = options or ParityOptions()
    fast = replace(settings, segment=replace(settings.segment, engine="fast"))
    slow = replace(settings, segment=replace(settings.segment, engine="reference", probabilities=False))
    conventions = chosen.conventions or stated_conventions(resolve_model(model))
    if not conventions.axes:
        conventions = replace(conventions, axes="LPS")
    ours, theirs = (
        open_nnunet(
            model,
            configuration=chosen.configuration,
            folds=chosen.folds,
            mirror=chosen.mirror,
            conventions=conventions,
            settings=engine,
        )
        for engine in (fast, slow)
    )
    if chosen.predictor is not None:
        theirs.engines[-1].use(chosen.predictor)
    names = {value: name for value, name, _ in ours.names}
    rows: list[OrganParity] = []
    noise: list[OrganParity] = []
    apart: dict[str, float] = {}
    for case in cases:
        progress.note(f"comparing on {case.name}")
        axes = ours.turned(case.affine_lps)
        a, b = (s.label(case.array, axes, case.spacing, progress=progress).labels for s in (ours, theirs))
        spacing = tuple(case.spacing[axis] for axis in axes.order)
        rows += compare_labels(a, b, spacing, names, case.name)  # type: ignore[arg-type]
        apart[case.name] = float((a != b).mean())
        if chosen.repeat:
            again = theirs.label(case.array, axes, case.spacing).labels
            noise += compare_labels(again, b, spacing, names, case.name)  # type: ignore[arg-type]
    if not rows:
        raise UsageError(Reason.EMPTY_INPUT, "there is no volume to compare")
    return ParityReport(str(ours.product), tuple(rows), tuple(noise), apart, chosen.limits)


def cases_of(files: Iterable[Path]) -> Iterable[Case]:
    """Read volumes from NIfTI files, one after the other."""
    import SimpleITK

    for path in files:
        image: Any = SimpleITK.ReadImage(str(path))
        array = SimpleITK.GetArrayFromImage(image)
        direction = np.asarray(image.GetDirection()).reshape(3, 3) * np.asarray(image.GetSpacing())
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = direction, image.GetOrigin()
        dx, dy, dz = (float(v) for v in image.GetSpacing())
        rows = tuple(tuple(float(v) for v in row) for row in affine)
        yield Case(path.name.split(".")[0], array, rows, (dz, dy, dx))  # type: ignore[arg-type]

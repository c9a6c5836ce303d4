"""Dose metrics by a second, independent way: polygons by winding numbers on a refined dose grid, doses by SimpleITK."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.contours.rtstruct import Contour
from ctenrich.dose.grid import DoseGrid
from ctenrich.dose.metrics import Metric
from ctenrich.dose.sampling import Region
from ctenrich.settings import Nesting

__all__ = ["second_values"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ALIGNED = 2e-5
_MOST_POINTS = 40_000_000


def second_values(
    region: Region,
    grid: DoseGrid,
    metrics: Sequence[Metric],
    *,
    contours: Sequence[Contour] = (),
    nesting: Nesting = "holes",
    step: float = 1.0,
) -> list[float | None]:
    """Metrics from sampling points on the rows and columns of the dose grid.

    Nothing of the first way is used but the slices: the points are those of the dose grid, refined; the contours are
    filled by their winding number (a contour inside another that runs the other way is a hole, copies change nothing)
    or by parity; the doses are SimpleITK's; the metrics are quantiles of NumPy.

    Parameters
    ----------
    region : Region
        Its slices, and its mask where there are no contours.
    grid : DoseGrid
        With equally spaced frames.
    metrics : sequence of Metric
    contours : sequence of Contour
        Of the structure; empty: the region's mask.
    nesting : {"holes", "union", "xor"}
        As for the first way.
    step : float
        mm between points, at most; twice as much, or four times, where there would be more than 40 million points.

    Returns
    -------
    list of float or None
        One per metric; None where this way does not apply: frames that are not equally spaced, slices that are not
        parallel to the dose, points outside the dose, or too many points also at four times the step.
    """
    none: list[float | None] = [None] * len(metrics)
    normal, down, across = grid.axes
    upright = abs(abs(float(normal @ region.normal)) - 1) <= _ALIGNED
    if not upright or not grid.regular or grid.shape[0] < 2 or not region.mask.any():
        return none
    sign = 1.0 if float(normal @ region.normal) > 0 else -1.0
    extent = _extent(region, across, down, contours)
    for size in (step, 2 * step, 4 * step):
        u, v = _refined(grid, 2, size), _refined(grid, 1, size)
        parts = max(1, math.ceil(float(region.thickness.max()) / size - 1e-6))
        u, v = u[(u >= extent[0]) & (u <= extent[1])], v[(v >= extent[2]) & (v <= extent[3])]
        if u.size * v.size * region.heights.size * parts <= _MOST_POINTS:
            break
    else:
        return none
    if not u.size or not v.size:
        return none
    inside = _by_contours(region, contours, (across, down), nesting) if contours else _by_mask(region, (across, down))
    image = _image(grid)
    area = float((u[1] - u[0]) * (v[1] - v[0])) if u.size > 1 and v.size > 1 else 0.0
    doses, volumes = [], []
    for k in range(region.heights.size):
        mask = inside(k, u, v)
        if not mask.any():
            continue
        low = float(region.heights[k] - region.below[k])
        thickness = float(region.thickness[k])
        for n in range(parts):
            height = sign * (low + (n + 0.5) * thickness / parts)
            found = _resampled(image, grid, u, v, height)[mask]
            doses.append(found)
            volumes.append(np.full(found.size, area * thickness / parts))
    if not doses:
        return none
    all_doses, all_volumes = np.concatenate(doses), np.concatenate(volumes)
    if np.isnan(all_doses).any():
        return none
    order = np.argsort(all_doses)
    ordered = _Ordered(all_doses[order], all_volumes[order])
    return [ordered.metric(metric) for metric in metrics]


def _refined(grid: DoseGrid, axis: int, step: float) -> Floats:
    """Centres of the parts of the dose grid's pixels along an axis."""
    places = grid.coordinates[axis]
    pixel = grid.pixel_spacing[axis - 1]
    parts = 2 * max(1, math.ceil(0.5 * pixel / step - 1e-6))  # even: no point is at the centre of a dose voxel
    within = (np.arange(parts) + 0.5) / parts - 0.5
    return (places[:, None] + pixel * within).ravel()


def _extent(
    region: Region, across: Floats, down: Floats, contours: Sequence[Contour]
) -> tuple[float, float, float, float]:
    if contours:
        points = np.concatenate([contour.points for contour in contours])
    else:
        corners = [
            x * region.row + y * region.column + region.heights[0] * region.normal
            for x in region.lattice.along_rows[[0, -1]]
            for y in region.lattice.along_columns[[0, -1]]
        ]
        points = np.array(corners)
    u, v = points @ across, points @ down
    margin = max(region.pixel)
    return float(u.min()) - margin, float(u.max()) + margin, float(v.min()) - margin, float(v.max()) + margin


Inside = Callable[[int, Floats, Floats], Mask]


def _by_contours(region: Region, contours: Sequence[Contour], axes: tuple[Floats, Floats], nesting: Nesting) -> Inside:
    of_slice: dict[int, list[Contour]] = {}
    for contour in contours:
        away = np.abs(region.heights - float((contour.points @ region.normal).mean()))
        nearest = int(away.argmin())
        if away[nearest] <= 1.01 * max(region.below[nearest], region.above[nearest]):
            of_slice.setdefault(nearest, []).append(contour)

    def inside(k: int, u: Floats, v: Floats) -> Mask:
        own = of_slice.get(k, [])
        windings = [_winding(contour.points @ axes[0], contour.points @ axes[1], u, v) for contour in own]
        shape = (v.size, u.size)
        if not windings:
            return np.zeros(shape, bool)
        if nesting == "xor" or any(contour.exclusive for contour in own):
            return np.asarray(sum(np.abs(w) for w in windings) % 2 == 1)
        if nesting == "union":
            return np.asarray(np.logical_or.reduce([w != 0 for w in windings]), bool)
        return np.asarray(sum(windings) != 0)

    return inside


def _winding(x: Floats, y: Floats, u: Floats, v: Floats) -> NDArray[np.int64]:
    """Winding number of a polygon around every point, [v, u]."""
    turns = np.zeros((v.size, u.size + 1), np.int64)
    x2, y2 = np.roll(x, -1), np.roll(y, -1)
    for x_a, y_a, x_b, y_b in zip(x, y, x2, y2, strict=True):
        if y_a == y_b:
            continue
        low, high = min(y_a, y_b), max(y_a, y_b)
        first, last = np.searchsorted(v, [low, high], side="left")
        if first == last:
            continue
        crossing = x_a + (v[first:last] - y_a) * (x_b - x_a) / (y_b - y_a)
        np.add.at(turns, (np.arange(first, last), np.searchsorted(u, crossing, side="right")), 1 if y_b > y_a else -1)
    return np.cumsum(turns, axis=1)[:, :-1]


def _by_mask(region: Region, axes: tuple[Floats, Floats]) -> Inside:
    """The voxel that a point is in; for rows and columns parallel to those of the dose."""
    across, down = axes
    turned = np.array([[region.row @ across, region.row @ down], [region.column @ across, region.column @ down]])

    def inside(k: int, u: Floats, v: Floats) -> Mask:
        grid_u, grid_v = np.meshgrid(u, v)
        x = turned[0, 0] * grid_u + turned[0, 1] * grid_v
        y = turned[1, 0] * grid_u + turned[1, 1] * grid_v
        i = np.rint((x - region.lattice.along_rows[0]) / region.pixel[1]).astype(int)
        j = np.rint((y - region.lattice.along_columns[0]) / region.pixel[0]).astype(int)
        valid = (i >= 0) & (j >= 0) & (i < region.mask.shape[2]) & (j < region.mask.shape[1])
        out = np.zeros(valid.shape, bool)
        out[valid] = region.mask[k][j[valid], i[valid]]
        return out

    return inside


def _image(grid: DoseGrid) -> Any:
    import SimpleITK  # only here: importing it takes a tenth of a second

    image: Any = SimpleITK.GetImageFromArray(grid.values())
    image.SetSpacing((grid.pixel_spacing[1], grid.pixel_spacing[0], grid.offsets[1] - grid.offsets[0]))
    start = [float(places[0]) for places in grid.coordinates]
    image.SetOrigin((start[2], start[1], start[0]))  # in the coordinates of the dose's own axes
    return image


def _resampled(image: Any, grid: DoseGrid, u: Floats, v: Floats, height: float) -> Floats:
    import SimpleITK  # as above

    identity: Any = SimpleITK.Transform  # the package has no type annotations
    spacing = (float(u[1] - u[0]) if u.size > 1 else 1.0, float(v[1] - v[0]) if v.size > 1 else 1.0, 1.0)
    plane = SimpleITK.Resample(
        image,
        (int(u.size), int(v.size), 1),
        identity(),
        SimpleITK.sitkLinear,
        (float(u[0]), float(v[0]), height),
        spacing,
        (1, 0, 0, 0, 1, 0, 0, 0, 1),
        -1.0,
        SimpleITK.sitkFloat64,
    )
    found: Floats = SimpleITK.GetArrayFromImage(plane)[0]
    beyond = (height < grid.coordinates[0][0] - 1e-6) or (height > grid.coordinates[0][-1] + 1e-6)
    return np.where((found < 0) | beyond, np.nan, found)


class _Ordered:
    """Samples in the order of growing dose."""

    def __init__(self, doses: Floats, volumes: Floats) -> None:
        self._doses = doses
        self._volumes = volumes
        self._colder = np.cumsum(volumes)
        self._total = float(self._colder[-1])

    def metric(self, metric: Metric) -> float | None:
        """Value of a metric; None where the structure is too small for it."""
        doses, total = self._doses, self._total
        match metric.quantity:
            case "volume":
                return total / 1000
            case "mean":
                return float(doses @ self._volumes) / total
            case "min":
                return float(doses[0])
            case "max":
                return float(doses[-1])
            case "share_at_dose" | "volume_at_dose":
                first = int(np.searchsorted(doses, metric.at * (1 - 1e-9)))
                part = total - (float(self._colder[first - 1]) if first else 0.0)
                return part / 1000 if metric.quantity == "volume_at_dose" else 100 * part / total
            case _:
                wanted = metric.at * 1000 if metric.quantity == "dose_at_volume" else metric.at / 100 * total
                return None if wanted > total else self._dose_at(total - wanted)

    def _dose_at(self, colder: float) -> float:
        """Dose at the end of a volume of colder samples, between the middles of the two samples around it."""
        around = int(np.searchsorted(self._colder, colder))
        part = slice(max(around - 2, 0), around + 3)
        return float(np.interp(colder, self._colder[part] - 0.5 * self._volumes[part], self._doses[part]))

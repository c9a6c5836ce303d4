"""The anatomy of the chest phantom: shape, position and HU of every organ of the average body.

Body coordinates (u, v, w) are mm from the carina: u to the left, v to the back, w to the head.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ctenrich.phantom.grid import Grid, Region
from ctenrich.phantom.patient import SCORES, VERTEBRAE, Patient, landmark_height
from ctenrich.phantom.shapes import Ellipsoid, Point, Shape, Tube

__all__ = ["SEGMENTS", "Canvas", "paint_body"]

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

SEGMENTS = ("esophagus", "heart", "trachea", "aorta", "lung_left", "lung_right", "spinal_cord")
"""Segments with ground truth; the value in the label array is the place in this list, from 1."""

_TOP = 400.0
_BOTTOM = -600.0
_WIDE = 400.0

# Half widths of the body by height: (w, half width, half depth, centre in v)
_OUTLINE = np.array(
    [
        (-600, 172, 118, 8),
        (-240, 168, 116, 8),
        (-150, 165, 116, 8),
        (-60, 170, 114, 8),
        (20, 176, 110, 8),
        (55, 190, 104, 9),
        (80, 188, 94, 11),
        (100, 150, 80, 14),
        (118, 92, 68, 16),
        (135, 64, 62, 16),
        (170, 58, 62, 12),
        (200, 62, 74, 6),
        (400, 70, 84, 0),
    ],
    dtype=np.float64,
)

_LUNG_TOP = landmark_height(SCORES["lung_end"])
_LUNG_BOTTOM = landmark_height(SCORES["lung_start"])
_DOME = landmark_height(SCORES["liver_end"])
_TAPER_FROM = -55.0


class Canvas:
    """HU and labels of a grid while they are painted; later paint wins.

    Parameters
    ----------
    grid : Grid
    patient : Patient
    """

    def __init__(self, grid: Grid, patient: Patient) -> None:
        self.grid = grid
        self.patient = patient
        self.hu = np.full(grid.shape, -1000.0, dtype=np.float32)
        self.labels = np.zeros(grid.shape, dtype=np.uint8)

    def region(self, low: Point, high: Point) -> tuple[Region, Floats, Floats, Floats] | None:
        """Part of the grid that reaches into a box of the body, with body coordinates.

        Parameters
        ----------
        low, high : (u, v, w)
            Corners of the box, mm in the body.

        Returns
        -------
        (Region, array, array, array) or None
            The part, and u, v, w of its voxels (they broadcast to its shape); None if the box is outside the grid.
        """
        found = self.grid.region(self.patient.to_patient(low), self.patient.to_patient(high))
        if found is None:
            return None
        return found, *self.patient.to_body(found.x, found.y, found.z)

    def paint(
        self,
        where: Callable[[Floats, Floats, Floats], Bools],
        low: Point,
        high: Point,
        hu: float,
        *,
        segment: str | None = None,
        spare: str | None = None,
    ) -> None:
        """Paint the voxels of a box for which `where` is true.

        Parameters
        ----------
        where : callable
            (u, v, w) -> array of bool.
        low, high : (u, v, w)
            Corners of the box, mm in the body.
        hu : float
        segment : str, optional
            Label of the painted voxels; by default none.
        spare : str, optional
            Voxels that already belong to this segment are not painted.
        """
        found = self.region(low, high)
        if found is None:
            return
        region, u, v, w = found
        target = self.hu[region.index]
        inside = np.broadcast_to(where(u, v, w), target.shape)
        if spare:
            inside = inside & (self.labels[region.index] != SEGMENTS.index(spare) + 1)
        target[inside] = hu
        self.labels[region.index][inside] = SEGMENTS.index(segment) + 1 if segment else 0

    def paint_shape(self, shape: Shape, hu: float, segment: str | None = None, spare: str | None = None) -> None:
        """Paint a shape; tubes segment by segment.

        Parameters
        ----------
        shape : Shape
        hu : float
        segment, spare : str, optional
            See `paint`.
        """
        for part in shape.parts() if isinstance(shape, Tube) else [shape]:
            self.paint(part.holds, *part.box(), hu, segment=segment, spare=spare)


def paint_body(canvas: Canvas) -> None:
    """Paint the whole body, from the outside in; later organs cover earlier ones."""
    _paint_table(canvas)
    _paint_chest_wall(canvas)
    _paint_abdomen(canvas)
    _paint_lungs(canvas)
    _paint_rib_cage(canvas)
    _paint_shoulders(canvas)
    _paint_spine(canvas)
    _paint_heart(canvas)
    _paint_aorta(canvas)
    _paint_esophagus(canvas)
    _paint_airways(canvas)


# ---------------------------------------------------------------- body, chest wall


def _body_outline(w: Floats, inset: float) -> tuple[Floats, Floats, Floats]:
    """Half width, half depth and centre of the body at a height, `inset` mm below the skin."""
    a, b, c = (np.interp(w, _OUTLINE[:, 0], _OUTLINE[:, n]).astype(np.float32) for n in (1, 2, 3))
    return a - np.float32(inset), b - np.float32(inset), c


def _within_outline(u: Floats, v: Floats, w: Floats, inset: float) -> Bools:
    a, b, c = _body_outline(w, inset)
    p, q = np.abs(u / a), np.abs((v - c) / b)
    return np.asarray(p * p * p + q * q * q <= 1)


def _paint_table(canvas: Canvas) -> None:
    top = 132.0

    def shell(u: Floats, v: Floats, w: Floats) -> Bools:
        depth = v - np.float32(top) + u * u * np.float32(0.0009)
        return np.asarray((depth >= 0) & (depth <= 14) & (np.abs(u) < 200) & (w < _TOP))

    canvas.paint(shell, (-200, 90, _BOTTOM), (200, top + 15, _TOP), -650.0)

    def skin(u: Floats, v: Floats, w: Floats) -> Bools:
        depth = v - np.float32(top) + u * u * np.float32(0.0009)
        return np.asarray((depth >= -1) & (depth <= 3) & (np.abs(u) < 200) & (w < _TOP))

    canvas.paint(skin, (-200, 90, _BOTTOM), (200, top + 4, _TOP), -100.0)


def _paint_chest_wall(canvas: Canvas) -> None:
    patient = canvas.patient
    low, high = (-_WIDE, -_WIDE, _BOTTOM), (_WIDE, _WIDE, _TOP)
    canvas.paint(lambda u, v, w: _within_outline(u, v, w, 0.0), low, high, 20.0)
    canvas.paint(lambda u, v, w: _within_outline(u, v, w, 2.5), low, high, patient.hu["fat"])
    canvas.paint(lambda u, v, w: _within_outline(u, v, w, patient.fat), low, high, patient.hu["muscle"])

    def cavity(u: Floats, v: Floats, w: Floats) -> Bools:
        a, b = _rib_cage(w)
        p, q = u / a, (v + 2) / b
        return np.asarray((p * p + q * q <= 1) & (w < _LUNG_TOP + 12))

    canvas.paint(cavity, (-150, -120, _BOTTOM), (150, 120, _LUNG_TOP + 12), patient.hu["fat"] + 5)


def _lung_taper(w: Floats) -> Floats:
    """Share of the full lung width at a height: 1 below, 0 at the apex."""
    share = np.clip((w - _TAPER_FROM) / (_LUNG_TOP - _TAPER_FROM), 0, 1)
    return np.asarray(np.sqrt(1 - share * share), dtype=np.float32)


def _lung_section(w: Floats) -> tuple[Floats, Floats, Floats]:
    """Distance of a lung's centre from the middle, half width and half depth, at a height."""
    taper = _lung_taper(w)
    centre = np.float32(42.0) + np.float32(30.0) * taper
    return centre, np.float32(57.0) * taper, np.float32(88.0) * taper


def _rib_cage(w: Floats) -> tuple[Floats, Floats]:
    """Half width and half depth of the rib cage's inside at a height."""
    centre, width, depth = _lung_section(w)
    return centre + width + np.float32(6), np.maximum(depth + np.float32(8), np.float32(50))


# ---------------------------------------------------------------- lungs, belly

_DOMES = {
    "right": Ellipsoid((-72.0, -7.0, -205.0), (53.0, 80.0, _DOME + 205.0)),
    "left": Ellipsoid((72.0, -7.0, -205.0), (53.0, 80.0, _DOME + 193.0)),
}


def _paint_lungs(canvas: Canvas) -> None:
    hu = canvas.patient.hu["lung"]
    for name, side in (("right", -1), ("left", 1)):
        dome = _DOMES[name]

        def lung(u: Floats, v: Floats, w: Floats, side: int = side, dome: Ellipsoid = dome) -> Bools:
            centre, width, depth = _lung_section(w)
            p, q = (u * side - centre) / np.maximum(width, 1e-3), (v + 2) / np.maximum(depth, 1e-3)
            return np.asarray((p * p + q * q <= 1) & ~dome.holds(u, v, w) & (w >= _LUNG_BOTTOM) & (w <= _LUNG_TOP))

        low = (min(side * 10.0, side * 135.0), -95.0, _LUNG_BOTTOM)
        high = (max(side * 10.0, side * 135.0), 95.0, _LUNG_TOP)
        canvas.paint(lung, low, high, hu, segment=f"lung_{name}")
    _paint_vessels(canvas)


def _paint_vessels(canvas: Canvas) -> None:
    """Branches of the lung vessels: brighter, but part of the lungs."""
    found = canvas.region((-135, -95, _LUNG_BOTTOM), (135, 95, _LUNG_TOP))
    if found is None:
        return
    region, u, v, w = found
    labels = canvas.labels[region.index]
    lungs = (labels == SEGMENTS.index("lung_left") + 1) | (labels == SEGMENTS.index("lung_right") + 1)
    spread = np.abs(u) - 40
    waves = np.sin(v / 7.0 + np.sin(w / 19.0) * 2) + np.sin(w / 8.0 + np.sin(v / 23.0) * 2) + np.sin(spread / 11.0)
    texture = np.clip(waves - 1.4 + np.clip(-spread / 60.0, -0.5, 0.5), 0, 1) * 700 + (v + 2) * 0.35
    target = canvas.hu[region.index]
    target[lungs] += np.broadcast_to(texture, target.shape)[lungs].astype(np.float32)


def _paint_abdomen(canvas: Canvas) -> None:
    hu = canvas.patient.hu
    for name, tissue in (("right", "liver"), ("left", "spleen")):
        canvas.paint_shape(_DOMES[name], hu[tissue])
    canvas.paint_shape(Ellipsoid((-45.0, -12.0, -205.0), (85.0, 72.0, 95.0), (0.0, 0.0, 0.0)), hu["liver"])
    canvas.paint_shape(Ellipsoid((-72.0, -5.0, -225.0), (56.0, 82.0, 75.0)), hu["liver"])
    canvas.paint_shape(Ellipsoid((52.0, -30.0, -185.0), (42.0, 42.0, 55.0)), 40.0)
    canvas.paint_shape(Ellipsoid((55.0, -42.0, -180.0), (25.0, 20.0, 30.0)), -900.0)
    for side in (-1, 1):
        canvas.paint_shape(Ellipsoid((side * 55.0, 52.0, -262.0 + 6 * side), (27.0, 24.0, 52.0)), hu["kidney"])
    for n in range(5):
        bowel = Ellipsoid((-60.0 + 30 * n, -45.0, -330.0 + 12 * (n % 2)), (16.0, 22.0, 60.0))
        canvas.paint_shape(bowel, 30.0 if n % 2 else -700.0)


# ---------------------------------------------------------------- bones


def _spine_position(patient: Patient, w: float) -> float:
    """Place of the vertebral bodies' centre along v at a height."""
    bend = patient.kyphosis * float(np.exp(-(((w + 20) / 110.0) ** 2)))
    neck = -14.0 * float(np.clip((w - 60) / 80.0, 0, 1))
    return 56.0 + bend + neck


def _paint_spine(canvas: Canvas) -> None:
    patient = canvas.patient
    heights = [landmark_height(SCORES[name]) for name in VERTEBRAE]
    for number, (name, height) in enumerate(zip(VERTEBRAE, heights, strict=True)):
        pitch = _vertebra_pitch(heights, number)
        _paint_vertebra(canvas, name, height, pitch)
    for low, high in itertools.pairwise(heights):
        middle = (low + high) / 2
        place, radius = _spine_position(patient, middle), _vertebra_radius(middle) * 0.95
        _paint_cylinder(canvas, (0.0, place, middle), (radius, radius * 0.8), (high - low) * 0.16, patient.hu["disc"])
    points = [(0.0, _canal_position(patient, height), height) for height in heights]
    bottom = landmark_height(SCORES["L1"])
    cord = [p for p in points if p[2] >= bottom - 1]
    canvas.paint_shape(Tube(tuple(points), (8.5,) * len(points)), 5.0)
    canvas.paint_shape(Tube(tuple(cord), (5.5,) * len(cord)), 40.0, "spinal_cord")


def _vertebra_pitch(heights: list[float], number: int) -> float:
    low = heights[max(0, number - 1)]
    high = heights[min(len(heights) - 1, number + 1)]
    return (high - low) / (min(len(heights) - 1, number + 1) - max(0, number - 1))


def _vertebra_radius(height: float) -> float:
    return float(np.interp(height, [-300, -150, 0, 90, 160], [24, 20, 16.5, 14, 12]))


def _canal_position(patient: Patient, height: float) -> float:
    return _spine_position(patient, height) + _vertebra_radius(height) * 0.8 + 8.0


def _paint_cylinder(canvas: Canvas, centre: Point, radii: tuple[float, float], half: float, hu: float) -> None:
    u0, v0, w0 = centre

    def holds(u: Floats, v: Floats, w: Floats) -> Bools:
        p, q = (u - np.float32(u0)) / np.float32(radii[0]), (v - np.float32(v0)) / np.float32(radii[1])
        return np.asarray((p * p + q * q <= 1) & (np.abs(w - np.float32(w0)) <= half))

    canvas.paint(holds, (u0 - radii[0], v0 - radii[1], w0 - half), (u0 + radii[0], v0 + radii[1], w0 + half), hu)


def _paint_vertebra(canvas: Canvas, name: str, height: float, pitch: float) -> None:
    patient = canvas.patient
    place, radius, half = _spine_position(patient, height), _vertebra_radius(height), pitch * 0.36
    _paint_cylinder(canvas, (0.0, place, height), (radius, radius * 0.8), half, patient.hu["cortex"])
    _paint_cylinder(canvas, (0.0, place, height), (radius - 2.5, radius * 0.8 - 2.5), half - 2.0, patient.hu["bone"])
    canal = _canal_position(patient, height)
    _paint_cylinder(canvas, (0.0, canal, height), (13.5, 12.5), half * 0.8, patient.hu["bone"] + 60)
    reach = {"L": 32.0, "T": 26.0, "C": 20.0}[name[0]]
    back = Tube(((0.0, canal + 10, height), (0.0, canal + reach, height - 0.35 * pitch)), (4.0, 3.5))
    canvas.paint_shape(back, patient.hu["bone"] + 60)
    for side in (-1, 1):
        wing = ((side * 12.0, canal, height), (side * (reach + 10), canal + 6, height + 0.1 * pitch))
        canvas.paint_shape(Tube(wing, (4.5, 4.0)), patient.hu["bone"] + 40)


def _paint_rib_cage(canvas: Canvas) -> None:
    """Ribs (sloping down from the spine to the front), sternum and rib cartilage."""
    patient = canvas.patient
    thoracic = [f"Th{n}" for n in range(12, 0, -1)]
    heights = np.array([landmark_height(SCORES[name]) + 4 for name in thoracic])
    found = canvas.region((-155, -115, heights[0] - 90), (155, 115, _LUNG_TOP + 10))
    if found is not None:
        region, u, v, w = found
        target = canvas.hu[region.index]
        a, b = _rib_cage(w)
        p, q = u / a, (v + 2) / b
        around = p * p + q * q
        k, j, i = np.nonzero(np.broadcast_to((around > 1.0) & (around < 1.16), target.shape))
        uu, vv, ww = (np.broadcast_to(c, target.shape)[k, j, i] for c in (u, v, w))
        back = (vv + 2) / np.hypot(uu, vv + 2)
        lifted = ww + 60.0 * (1 - back) / 2
        number = np.interp(lifted, heights, np.arange(12.0), left=-9, right=99)
        nearest = np.clip(np.rint(number), 0, 11)
        pitch = np.gradient(heights)[nearest.astype(int)]
        rib = (np.abs(number - nearest) * pitch < 5.5) & ((nearest > 1) | (back > 0.1)) & (np.abs(uu) > 15)
        hu = np.where(back < -0.75, 90.0, patient.hu["bone"] + 90)
        target[k[rib], j[rib], i[rib]] = hu[rib]
    canvas.paint_shape(Ellipsoid((0.0, -101.0, -25.0), (19.0, 6.0, 82.0)), patient.hu["bone"])


def _paint_shoulders(canvas: Canvas) -> None:
    patient = canvas.patient
    for side in (-1, 1):
        collar = ((side * 16.0, -62.0, 46.0), (side * 80.0, -46.0, 66.0), (side * 138.0, 6.0, 84.0))
        canvas.paint_shape(Tube(collar, (7.0, 6.0, 6.0)), patient.hu["bone"] + 60)
        canvas.paint_shape(Ellipsoid((side * 158.0, 12.0, 64.0), (22.0, 23.0, 24.0)), patient.hu["bone"] - 20)
        blade = Ellipsoid((side * 112.0, 82.0, 5.0), (34.0, 5.0, 66.0), (8.0, 0.0, -side * 35.0))
        canvas.paint_shape(blade, patient.hu["bone"] + 40)


# ---------------------------------------------------------------- organs with truth


def _paint_heart(canvas: Canvas) -> None:
    patient = canvas.patient
    size, (du, dv, dw) = patient.heart_size, patient.heart_shift
    low = Ellipsoid((24.0 + du, -30.0 + dv, -72.0 + dw), (60.0 * size, 40.0 * size, 42.0 * size), (0.0, 24.0, -16.0))
    base = Ellipsoid((-8.0 + du, -18.0 + dv, -55.0 + dw), (40.0 * size, 36.0 * size, 40.0 * size))
    for grown, hu, segment in ((6.0, patient.hu["fat"], None), (0.0, patient.hu["heart"], "heart")):
        for part in (low, base):
            radii = (part.radii[0] + grown, part.radii[1] + grown, part.radii[2] + grown)
            canvas.paint_shape(Ellipsoid(part.centre, radii, part.turn), hu, segment)
    chamber = Ellipsoid(
        (32.0 + du, -32.0 + dv, -76.0 + dw), (36.0 * size, 21.0 * size, 24.0 * size), (0.0, 24.0, -16.0)
    )
    canvas.paint_shape(chamber, patient.hu["heart"] + 0.35 * (patient.hu["aorta"] - patient.hu["heart"]), "heart")


def _paint_aorta(canvas: Canvas) -> None:
    patient = canvas.patient
    r, top = patient.aorta_radius, patient.arch_height
    path: list[Point] = [(-6.0, -26.0, -38.0), (-14.0, -32.0, -15.0), (-14.0, -30.0, top - 14.0)]
    for angle in np.linspace(150, 20, 7):
        share = (150 - angle) / 130
        across = -12.0 + 36.0 * share
        deep = -27.0 + 57.0 * share
        path.append((across, deep, top - 14.0 + 14.0 * float(np.sin(np.deg2rad(angle)) ** 0.5)))
    for w, u in ((-20.0, 25.0), (-80.0, 24.0), (-140.0, 19.0), (-200.0, 12.0), (-330.0, 6.0)):
        path.append((u, _spine_position(patient, w) - _vertebra_radius(w) * 0.5 - 8.0, w))
    radii = tuple(np.interp(np.arange(len(path)), [0, len(path) - 1], [r, r * 0.8]))
    canvas.paint_shape(Tube(tuple(path), tuple(n + 2.5 for n in radii)), patient.hu["fat"] + 10, spare="heart")
    canvas.paint_shape(Tube(tuple(path), radii), patient.hu["aorta"], "aorta")


def _paint_esophagus(canvas: Canvas) -> None:
    patient = canvas.patient
    du, dv = patient.esophagus_shift
    bottom = -150.0
    path: list[Point] = []
    for w, u in ((175.0, 3.0), (100.0, 4.0), (40.0, 5.0), (0.0, 2.0), (-60.0, -2.0), (-110.0, 4.0), (bottom, 22.0)):
        gap = 15.0 if w < -100 else 12.0
        place = _spine_position(patient, w) - _vertebra_radius(w) * 0.8 - gap
        share = float(np.clip((90.0 - w) / 60.0, 0, 1))
        path.append((u + du * share, min(place + dv * share, place + 1.5) - (14.0 if w <= bottom else 0.0), w))
    for grown, hu, segment in (
        (2.5, patient.hu["fat"] + 10, None),
        (0.0, patient.hu["esophagus"], "esophagus"),
    ):
        canvas.paint_shape(Tube(tuple(path), (8.5 + grown,) * len(path)), hu, segment)
    canvas.paint_shape(Tube(tuple(path[:-1]), (3.2,) * (len(path) - 1)), -500.0, "esophagus")


def _paint_airways(canvas: Canvas) -> None:
    patient = canvas.patient
    up: list[Point] = [(0.0, 3.0, 0.0), (0.0, -2.0, 40.0), (0.0, -8.0, 100.0), (0.0, -18.0, 200.0)]
    right: list[Point] = [(0.0, 3.0, 1.0), (-24.0, 8.0, -20.0), (-36.0, 10.0, -34.0)]
    left: list[Point] = [(0.0, 3.0, 1.0), (26.0, 10.0, -17.0), (40.0, 14.0, -28.0)]
    for grown, hu, segment in ((2.0, patient.hu["muscle"], None), (0.0, -990.0, "trachea")):
        canvas.paint_shape(Tube(tuple(up), (9.0 + grown,) * 4), hu, segment)
        for branch in (right, left):
            canvas.paint_shape(Tube(tuple(branch), (8.0 + grown, 6.5 + grown, 5.5 + grown)), hu, segment)

"""Solid shapes in the coordinates of the average body: inside test and bounding box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Ellipsoid", "Shape", "Tube"]

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Point = tuple[float, float, float]


class Shape:
    """A solid that can be painted."""

    def box(self) -> tuple[Point, Point]:
        """Corners of the bounding box (low, high), mm in the body.

        Raises
        ------
        NotImplementedError
            In this base class.
        """
        raise NotImplementedError

    def holds(self, u: Floats, v: Floats, w: Floats) -> Bools:
        """Whether each point is inside.

        Parameters
        ----------
        u, v, w : array
            mm in the body; they broadcast.

        Returns
        -------
        array of bool

        Raises
        ------
        NotImplementedError
            In this base class.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Ellipsoid(Shape):
    """An ellipsoid, turned about the three axes one after the other (degrees)."""

    centre: Point
    radii: Point
    turn: Point = (0.0, 0.0, 0.0)

    def _axes(self) -> npt.NDArray[np.float64]:
        """Rows are the directions of the radii."""
        turned = np.eye(3)
        for axis, angle in enumerate(self.turn):
            c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
            one = np.eye(3)
            p, q = (axis + 1) % 3, (axis + 2) % 3
            one[p, p], one[p, q], one[q, p], one[q, q] = c, -s, s, c
            turned = one @ turned
        return np.asarray(turned.T)

    def box(self) -> tuple[Point, Point]:
        """Corners of the bounding box."""
        reach = np.sqrt(((self._axes() * np.array(self.radii)[:, None]) ** 2).sum(axis=0))
        low, high = np.array(self.centre) - reach, np.array(self.centre) + reach
        return tuple(low), tuple(high)

    def holds(self, u: Floats, v: Floats, w: Floats) -> Bools:
        """Whether each point is inside.

        Parameters
        ----------
        u, v, w : array
            mm in the body; they broadcast.

        Returns
        -------
        array of bool
        """
        du, dv, dw = (c - np.float32(o) for c, o in zip((u, v, w), self.centre, strict=True))
        total: Floats | float = 0.0
        for (a, b, c), radius in zip(self._axes().astype(np.float32), self.radii, strict=True):
            along = np.float32(1 / radius) * (a * du + b * dv + c * dw)
            total = total + along * along
        return np.asarray(total <= 1)


@dataclass(frozen=True)
class Tube(Shape):
    """A tube along a polyline with a radius at every point, and round ends."""

    points: tuple[Point, ...]
    radii: tuple[float, ...]

    def box(self) -> tuple[Point, Point]:
        """Corners of the bounding box."""
        points, radii = np.array(self.points), np.array(self.radii)[:, None]
        return tuple((points - radii).min(axis=0)), tuple((points + radii).max(axis=0))

    def parts(self) -> list[Tube]:
        """One tube per segment: small boxes are fast to paint."""
        return [
            Tube((a, b), (r, s))
            for a, b, r, s in zip(self.points[:-1], self.points[1:], self.radii[:-1], self.radii[1:], strict=True)
        ]

    def holds(self, u: Floats, v: Floats, w: Floats) -> Bools:
        """Whether each point is inside.

        Parameters
        ----------
        u, v, w : array
            mm in the body; they broadcast.

        Returns
        -------
        array of bool
        """
        inside: Bools | None = None
        for part in self.parts():
            found = part._segment_holds(u, v, w)
            inside = found if inside is None else inside | found
        assert inside is not None
        return inside

    def _segment_holds(self, u: Floats, v: Floats, w: Floats) -> Bools:
        start, end = np.array(self.points, dtype=np.float32)
        direction = end - start
        length = np.float32(direction @ direction)
        du, dv, dw = u - start[0], v - start[1], w - start[2]
        share = np.clip((du * direction[0] + dv * direction[1] + dw * direction[2]) / length, 0, 1)
        radius = np.float32(self.radii[0]) + share * np.float32(self.radii[1] - self.radii[0])
        away = (du - share * direction[0]) ** 2 + (dv - share * direction[1]) ** 2 + (dw - share * direction[2]) ** 2
        return np.asarray(away <= radius * radius)

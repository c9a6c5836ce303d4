"""One patient: sizes, proportions and tissue values drawn from a seed, and the positions of the landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctenrich.phantom.options import PhantomOptions

__all__ = ["CARINA_SCORE", "MM_PER_SCORE", "SCORES", "VERTEBRAE", "Patient", "draw_patient", "landmark_height"]

SCORES: dict[str, float] = {
    "L5": 25.532,
    "L4": 29.414,
    "L3": 33.817,
    "L2": 37.763,
    "L1": 41.478,
    "lung_start": 44.143,
    "Th12": 44.952,
    "Th11": 47.725,
    "Th10": 51.069,
    "Th9": 53.994,
    "liver_end": 54.479,
    "Th8": 56.856,
    "Th7": 59.851,
    "Th6": 63.177,
    "Th5": 65.964,
    "Th4": 68.499,
    "Th3": 70.973,
    "Th2": 73.401,
    "lung_end": 75.389,
    "Th1": 75.794,
    "C7": 77.937,
    "C6": 79.497,
    "C5": 81.826,
    "C4": 83.817,
    "C3": 85.647,
}
"""Landmarks that the phantom has, at the mean slice scores of body part regression (Schuhegger 2021): the phantom is
built to this scale, so that its proportions are those of an average adult."""

VERTEBRAE = tuple(name for name in SCORES if name[0] in "LTC")
"""From L5 up to C3."""

MM_PER_SCORE = 1 / 0.118
"""Expected slope of body part regression: 0.118 score/mm."""

CARINA_SCORE = 67.0
"""The carina is between the fourth and the fifth thoracic vertebra."""


def landmark_height(score: float) -> float:
    """Height above the carina of a score, mm, in the average patient."""
    return (score - CARINA_SCORE) * MM_PER_SCORE


@dataclass(frozen=True)
class Patient:
    """Size and tissue of one patient. Lengths are mm in the average patient's body unless stated otherwise."""

    scale: tuple[float, float, float]
    """Of the average body along x, y, z."""
    carina: tuple[float, float, float]
    """Patient position of the carina, mm, LPS."""
    fat: float
    """Thickness of the fat under the skin."""
    heart_size: float
    heart_shift: tuple[float, float, float]
    aorta_radius: float
    arch_height: float
    esophagus_shift: tuple[float, float]
    kyphosis: float
    """How far the spine bends backwards in the middle of the chest."""
    hu: dict[str, float]
    noise: float
    """Standard deviation, HU."""

    def to_body(
        self, x: npt.NDArray[np.float32], y: npt.NDArray[np.float32], z: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Convert patient coordinates to coordinates in the average body.

        Parameters
        ----------
        x, y, z : array
            mm, LPS; they broadcast.

        Returns
        -------
        (array, array, array)
            u, v, w: mm from the carina.
        """
        u, v, w = (
            (c - np.float32(o)) / np.float32(s) for c, o, s in zip((x, y, z), self.carina, self.scale, strict=True)
        )
        return u, v, w

    def to_patient(self, point: tuple[float, float, float]) -> tuple[float, float, float]:
        """A point of the average body to patient coordinates, mm, LPS."""
        x, y, z = (p * s + o for p, s, o in zip(point, self.scale, self.carina, strict=True))
        return x, y, z

    def landmarks(self) -> dict[str, float]:
        """Patient z of every landmark, mm, from feet to head."""
        return {name: self.carina[2] + self.scale[2] * landmark_height(score) for name, score in SCORES.items()}


def draw_patient(options: PhantomOptions) -> Patient:
    """Draw the patient of a seed."""
    rng = np.random.default_rng([options.seed, 1])

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    hu = {
        "fat": between(-110, -80),
        "muscle": between(40, 60),
        "lung": between(-880, -810),
        "heart": between(50, 80),
        "aorta": between(110, 190),
        "esophagus": between(25, 45),
        "liver": between(90, 120),
        "spleen": between(100, 130),
        "kidney": between(140, 180),
        "bone": between(190, 260),
        "cortex": between(380, 520),
        "disc": between(70, 100),
    }
    return Patient(
        scale=(between(0.9, 1.1), between(0.9, 1.1), between(0.93, 1.07)),
        carina=options.carina,
        fat=between(6, 20),
        heart_size=between(0.92, 1.1),
        heart_shift=(between(-5, 5), between(-4, 4), between(-6, 6)),
        aorta_radius=between(12.0, 15.0),
        arch_height=between(14, 24),
        esophagus_shift=(between(-3, 4), between(-2, 2)),
        kyphosis=between(0, 12),
        hu=hu,
        noise=between(10, 20) if options.noise is None else options.noise,
    )

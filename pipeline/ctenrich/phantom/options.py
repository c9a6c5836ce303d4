"""Options of a phantom: the patient, the grid, the encoding of the files, the faults."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

__all__ = ["ORIENTATIONS", "FileOrder", "PhantomOptions", "PixelEncoding", "Quirk"]

Vector = tuple[float, float, float]


class PixelEncoding(StrEnum):
    """Transfer syntaxes that the writer knows; the value is the UID (PS3.5 annex A)."""

    IMPLICIT = str(ImplicitVRLittleEndian)
    EXPLICIT = str(ExplicitVRLittleEndian)
    DEFLATED = str(DeflatedExplicitVRLittleEndian)
    BIG_ENDIAN = str(ExplicitVRBigEndian)
    JPEG_LS = str(JPEGLSLossless)
    JPEG_2000 = str(JPEG2000Lossless)
    RLE = str(RLELossless)


class FileOrder(StrEnum):
    """Order of file names and Instance Numbers relative to the slices, which run along the slice normal."""

    ALONG_NORMAL = "along_normal"
    AGAINST_NORMAL = "against_normal"
    SHUFFLED = "shuffled"
    """File names are shuffled, Instance Numbers run along the normal."""
    SHUFFLED_NUMBERS = "shuffled_numbers"
    """File names and Instance Numbers are both shuffled, each in its own way."""


class Quirk(StrEnum):
    """Faults and vendor habits, each with a sentence that describes the written files."""

    sentence: str

    def __new__(cls, code: str, sentence: str = "") -> Quirk:
        """Keep the code as the value and the sentence beside it."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member

    LOCALIZER = "localizer", "The series also contains a coronal localizer."
    MISSING_SLICE = "missing_slice", "The slice in the middle is not written."
    ALTERNATING_SPACING = "alternating_spacing", "Gaps alternate between 0.75 and 1.25 of the spacing."
    POSITION_JITTER = "position_jitter", "Positions are off by up to 0.04 mm along the normal."
    LATERAL_DRIFT = "lateral_drift", "Positions move 0.05 mm sideways with every slice."
    DUPLICATE_FILE = "duplicate_file", "One file is there twice, byte for byte."
    CONFLICTING_DUPLICATE = "conflicting_duplicate", "Two files carry one SOP Instance UID and different pixels."
    SAME_POSITION = "same_position", "Two instances have one position."
    TWO_ORIENTATIONS = "two_orientations", "The last quarter of the slices is tilted by ten degrees."
    OTHER_PIXEL_SPACING = "other_pixel_spacing", "One slice states another pixel spacing."
    OTHER_MATRIX = "other_matrix", "One slice has half the rows."
    OTHER_FRAME_OF_REFERENCE = "other_frame_of_reference", "One slice has another frame of reference."
    RESCALE_CHANGE = "rescale_change", "From the middle on, slope and intercept are others; the HU are the same."
    PADDING = "padding", "Outside a circle the pixels hold the padding value -2000."
    UNSIGNED = "unsigned", "Pixels are unsigned, 12 bits, intercept -1024."
    NO_IMAGE_TYPE = "no_image_type", "Image Type is missing."
    SECONDARY = "secondary", "Image Type is ORIGINAL\\SECONDARY\\AXIAL."
    DERIVED = "derived", "Image Type is DERIVED\\SECONDARY\\REFORMATTED."
    ONE_SLICE = "one_slice", "Only the middle slice is written."
    TRUNCATED = "truncated", "One file ends in the middle of its pixels."
    LYING_ROWS = "lying_rows", "One slice states 65535 rows."
    MIXED_MODALITY = "mixed_modality", "One object of the series is an MR image."
    NO_POSITION = "no_position", "One slice has no Image Position (Patient)."
    ZERO_SPACING = "zero_spacing", "Pixel Spacing is zero."
    JUNK_FILE = "junk_file", "A file that is not DICOM is in the folder."
    EMPTY_FILE = "empty_file", "An empty file is in the folder."
    NO_PREAMBLE = "no_preamble", "Files start with the meta group: no preamble, no prefix."
    ENHANCED = "enhanced", "The slices are frames of one Enhanced CT object."


_LEFT, _POSTERIOR, _SUPERIOR = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def _negated(v: Vector) -> Vector:
    return (0.0 - v[0], 0.0 - v[1], 0.0 - v[2])


def _plane_orientations() -> dict[str, tuple[Vector, Vector]]:
    """Every pair of in-plane flips and transpositions of the three main planes."""
    pairs = {"axial": (_LEFT, _POSTERIOR), "sagittal": (_POSTERIOR, _SUPERIOR), "coronal": (_LEFT, _SUPERIOR)}
    found: dict[str, tuple[Vector, Vector]] = {}
    for plane, (first, second) in pairs.items():
        for a in (first, _negated(first)):
            for b in (second, _negated(second)):
                found[f"{plane}_{_direction_letter(a)}{_direction_letter(b)}"] = (a, b)
                found[f"{plane}_{_direction_letter(b)}{_direction_letter(a)}"] = (b, a)
    return found


def _direction_letter(v: Vector) -> str:
    axis = max(range(3), key=lambda n: abs(v[n]))
    return ("L", "P", "S")[axis] if v[axis] > 0 else ("R", "A", "I")[axis]


ORIENTATIONS: dict[str, tuple[Vector, Vector]] = _plane_orientations()
"""(row cosines, column cosines) of the 24 axis-aligned orientations.

A name holds the plane and where the column index and the row index grow to: ``axial_LP`` is the usual one,
``coronal_LI`` a coronal with the head at the top of the screen.
"""


@dataclass(frozen=True)
class PhantomOptions:
    """One phantom series. Equal options give equal bytes.

    Notes
    -----
    Coordinates are mm in the DICOM patient system (LPS). The carina of the phantom lies at `carina`; the grid is
    centred at `centre`. Slices run along the slice normal (row x column cosines), as everywhere in the package.
    """

    seed: int = 0
    """The patient: size, proportions, tissue values, noise."""
    rows: int = 160
    columns: int = 160
    pixel_spacing: tuple[float, float] = (2.5, 2.5)
    """(between rows, between columns), mm."""
    slices: int = 110
    slice_spacing: float = 3.0
    row_cosines: Vector = _LEFT
    column_cosines: Vector = _POSTERIOR
    centre: Vector = (0.0, 5.0, -55.0)
    """Centre of the grid, mm, LPS."""
    carina: Vector = (0.0, 0.0, 0.0)
    """Where the trachea divides, mm, LPS."""
    gantry_tilt: float = 0.0
    """Degrees: slices tilted about the x axis but stacked along z (a sheared volume)."""
    noise: float | None = None
    """Standard deviation, HU; None: between 10 and 20, by the seed."""
    file_order: FileOrder = FileOrder.ALONG_NORMAL
    encoding: PixelEncoding = PixelEncoding.EXPLICIT
    quirks: frozenset[Quirk] = field(default_factory=frozenset)
    rtstruct: bool = False
    """Also write the truth as an RTSTRUCT."""
    manufacturer: str = "ctenrich phantom"
    patient_name: str = "Phantom^Chest"
    patient_id: str = ""
    """Empty: ``PHANTOM-`` and the seed."""
    study: str = "1"
    """Series of one patient with the same value belong to one study and one frame of reference."""
    series_number: int = 1
    series_description: str = "Chest phantom"

    def changed(self, **changes: object) -> PhantomOptions:
        """Make a copy with other values."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def with_quirks(self, *quirks: Quirk) -> PhantomOptions:
        """Make a copy that also has `quirks`."""
        return dataclasses.replace(self, quirks=self.quirks | frozenset(quirks))

    def oriented(
        self, name: str, *, extent: Vector = (400.0, 400.0, 330.0), voxel: Vector | None = None
    ) -> PhantomOptions:
        """Make a copy in one of `ORIENTATIONS` that covers a box of patient space.

        Parameters
        ----------
        name : str
            Key of `ORIENTATIONS`.
        extent : tuple
            Size of the box in x, y, z, mm.
        voxel : tuple, optional
            Voxel size in x, y, z, mm; by default that of these options seen as axial.

        Returns
        -------
        PhantomOptions
        """
        row, column = ORIENTATIONS[name]
        size = voxel or (self.pixel_spacing[1], self.pixel_spacing[0], self.slice_spacing)
        i, j = (max(range(3), key=lambda n, v=v: abs(v[n])) for v in (row, column))  # type: ignore[misc]
        k = 3 - i - j
        return dataclasses.replace(
            self,
            row_cosines=row,
            column_cosines=column,
            columns=round(extent[i] / size[i]),
            rows=round(extent[j] / size[j]),
            slices=round(extent[k] / size[k]),
            pixel_spacing=(size[j], size[i]),
            slice_spacing=size[k],
        )

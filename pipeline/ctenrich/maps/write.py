"""Write maps as DICOM, read them again, compare, validate - and only then keep them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ctenrich.codes.mappings import find_segment
from ctenrich.errors import EncodingError, InconsistencyError, InputError
from ctenrich.harmonise.images import image_stem, open_image
from ctenrich.maps.fractional import (
    Fractions,
    FractionsDescription,
    fraction_planes,
    fractional_segmentation,
    planned_fractions,
)
from ctenrich.maps.frames import write_frames
from ctenrich.maps.parametric_map import MapDescription, parametric_map
from ctenrich.maps.quantity import check_range
from ctenrich.maps.source import MapSource
from ctenrich.maps.values import StoredValues, values_of_image
from ctenrich.proof.checks import Report
from ctenrich.proof.maps import ExpectedValues, prove_fractional, prove_map
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Proof, Severity
from ctenrich.settings import EncodeSettings
from ctenrich.validate.dciodvfy import run_dciodvfy
from ctenrich.workspace import save_record, sha256_of_file

__all__ = [
    "FractionFile",
    "MapFile",
    "MapValues",
    "WrittenMap",
    "fractional_of",
    "parametric_of",
    "read_again",
    "source_files",
    "write_fractional",
    "write_parametric_map",
    "written_and_proven",
]


@dataclass(frozen=True, kw_only=True)
class WrittenMap:
    """An object that was proven and validated."""

    path: Path
    receipt: Path
    """The proof, as JSON: every check with its outcome, and the SHA-256 of the object."""
    sop_instance_uid: str
    proof: Proof
    warnings: tuple[Issue, ...]
    """Warnings of dciodvfy."""


@dataclass(frozen=True, kw_only=True)
class MapFile:
    """A map of another program: its file, and how its values are to be stored."""

    path: Path
    stored: str = "auto"
    """One of :data:`ctenrich.maps.values.STORED_TYPES`."""
    padding: float | None = None
    """Stored value of voxels without a value."""


def write_parametric_map(
    file: MapFile,
    source: MapSource,
    description: MapDescription,
    out: Path,
    *,
    settings: EncodeSettings | None = None,
) -> WrittenMap:
    """Write a map as a Parametric Map.

    Parameters
    ----------
    file : MapFile
        NIfTI, NRRD or MetaImage on the grid of the source.
    source : MapSource
        The images that it was made from.
    description : MapDescription
        Quantity and unit of the values.
    out : Path
        The object; ``<name>.proof.json`` beside it is the proof.
    settings : EncodeSettings, optional
        Dates.

    Returns
    -------
    WrittenMap

    Raises
    ------
    InputError
        BAD_MAP, OTHER_GRID, and the errors of :func:`ctenrich.maps.values.values_of_image`.
    EncodingError
        ENCODING, UNSAFE_IDENTIFIER; INVALID_OBJECT if dciodvfy finds an error. Nothing is kept then.
    InconsistencyError
        PROOF_FAILED. Nothing is kept then.
    """
    reader = partial(values_of_image, file.path, source.series, stored=file.stored, padding=file.padding)
    given = MapValues(name=file.path.name, open=reader, expected=partial(read_again, file.path))
    return parametric_of(given, source, description, out, settings)


@dataclass(frozen=True, kw_only=True)
class MapValues:
    """Values of a map of any origin."""

    name: str
    """For messages."""
    open: Callable[[], StoredValues]
    """Reads the values, on the grid of the source."""
    expected: Callable[[], ExpectedValues]
    """Reads them again, by a second reader where there is one, for the proof; the first ones are then not held."""


def parametric_of(
    given: MapValues,
    source: MapSource,
    description: MapDescription,
    out: Path,
    settings: EncodeSettings | None = None,
) -> WrittenMap:
    """Write and prove values of any origin; result and errors as `write_parametric_map`.

    Parameters
    ----------
    given : MapValues
        The values.
    source, description, out, settings : see `write_parametric_map`
        The same.
    """
    values = given.open()
    limits = values.limits(given.name)
    check_range(description.quantity, *limits, given.name)
    dataset = parametric_map(values, limits, source, description, settings or EncodeSettings())
    with written_and_proven(out) as kept:
        write_frames(dataset, values.planes(), values.kind, kept.path)
        del values
        codes = (description.quantity.quantity, description.quantity.unit)
        kept.proof = lambda path: prove_map(path, given.expected(), codes, source_files(source))
    return kept.outcome(str(dataset.SOPInstanceUID))


@dataclass(frozen=True, kw_only=True)
class FractionFile:
    """Fractions of a segment of another program: their file, and the row of mappings/segments.csv that names them."""

    path: Path
    name: str


def write_fractional(
    files: Sequence[FractionFile],
    source: MapSource,
    description: FractionsDescription,
    out: Path,
    *,
    settings: EncodeSettings | None = None,
) -> WrittenMap:
    """Write fractions of segments as a FRACTIONAL segmentation.

    Parameters
    ----------
    files : sequence of FractionFile
        One image with values from 0 to 1 for each segment, on the grid of the source.
    source : MapSource
        The images that they were made from.
    description : FractionsDescription
        Probabilities or occupancies, and the algorithm.
    out : Path
        The object; ``<name>.proof.json`` beside it is the proof.
    settings : EncodeSettings, optional
        Dates.

    Returns
    -------
    WrittenMap

    Raises
    ------
    InputError
        UNMAPPED_LABEL for a name that is not in the mappings; BAD_MAP, OTHER_GRID, EMPTY_SEGMENTATION, and the errors
        of :func:`ctenrich.maps.values.values_of_image`.
    EncodingError
        ENCODING; INVALID_OBJECT if dciodvfy finds an error. Nothing is kept then.
    InconsistencyError
        PROOF_FAILED. Nothing is kept then.
    """
    parts = []
    for number, file in enumerate(files, start=1):
        code = find_segment(file.name)
        if code is None:
            hint = "names are those of `ctenrich codes list`"
            raise InputError(Reason.UNMAPPED_LABEL, f"mappings/segments.csv does not know {file.name!r}", hint)
        reader = partial(values_of_image, file.path, source.series)
        parts.append(Fractions(number=number, code=code, label=image_stem(file.path.name), open=reader))
    expected = [partial(read_again, file.path) for file in files]
    return fractional_of(parts, expected, source, description, out, settings)


def fractional_of(
    parts: Sequence[Fractions],
    expected: Sequence[Callable[[], ExpectedValues]],
    source: MapSource,
    description: FractionsDescription,
    out: Path,
    settings: EncodeSettings | None = None,
) -> WrittenMap:
    """Write and prove fractions of any origin; result and errors as `write_fractional`.

    Parameters
    ----------
    parts : sequence of Fractions
        The segments, numbered from 1.
    expected : sequence of function
        The same fractions by a second reader, for the proof.
    source, description, out, settings : see `write_fractional`
        The same.
    """
    planned = planned_fractions(parts, [part.label for part in parts])
    dataset = fractional_segmentation(planned, source, description, settings or EncodeSettings())
    types = {part.number: part.code.type for part in planned}
    with written_and_proven(out) as kept:
        write_frames(dataset, fraction_planes(planned), np.dtype(np.uint8), kept.path)
        kept.proof = lambda path: prove_fractional(path, lambda n: expected[n - 1](), types, source_files(source))
    return kept.outcome(str(dataset.SOPInstanceUID))


def source_files(source: MapSource) -> list[Path]:
    """Files of the images of a source, each once."""
    return [Path(path) for path in dict.fromkeys(item.path for item in source.series.slices)]


def read_again(path: Path) -> ExpectedValues:
    """Read an image by SimpleITK, the encoder's second reader; by nibabel where SimpleITK refuses the header."""
    itk: Any = import_module("SimpleITK")  # takes long to import
    try:
        image = itk.ReadImage(str(path))
    except RuntimeError:
        found = open_image(path)
        return ExpectedValues(array=found.array, affine_lps=np.asarray(found.affine_lps))
    while image.GetDimension() > 3:
        image = image[..., 0]
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return ExpectedValues(array=itk.GetArrayViewFromImage(image), affine_lps=affine, owner=image)


class _Kept:
    """An object under a temporary name, until its proof has passed."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = out.with_name(f".{out.name}.unproven")
        self.receipt = out.with_name(f"{out.name.removesuffix('.dcm')}.proof.json")
        self.proof: Callable[[Path], Report] = lambda _: Report("nothing")
        self._passed: tuple[Proof, tuple[Issue, ...]] | None = None

    def keep(self) -> None:
        """Prove and validate the object; rename it if both pass."""
        report = self.proof(self.path)
        report.hashes["object"] = sha256_of_file(self.path)
        proof = report.proof()
        failed = [f"{check.name}: {check.detail}" for check in proof.checks if not check.passed]
        if failed or not proof.passed:
            message = (
                f"{self.out.name} does not hold what was put into it: {'; '.join(failed) or 'nothing was checked'}"
            )
            raise InconsistencyError(Reason.PROOF_FAILED, message, "please report it, with the input if you can")
        issues = run_dciodvfy(self.path, self.out.name)
        errors = [issue.message for issue in issues if issue.severity is Severity.ERROR]
        if errors:
            raise EncodingError(Reason.INVALID_OBJECT, f"dciodvfy finds errors in {self.out.name}: {errors[0]}")
        save_record(self.receipt, proof)
        self.path.replace(self.out)
        self._passed = (proof, tuple(issues))

    def outcome(self, sop_instance_uid: str) -> WrittenMap:
        """Return what was written."""
        assert self._passed is not None
        proof, issues = self._passed
        return WrittenMap(
            path=self.out, receipt=self.receipt, sop_instance_uid=sop_instance_uid, proof=proof, warnings=issues
        )


@contextmanager
def written_and_proven(out: Path) -> Iterator[_Kept]:
    """Let the body write an object to a temporary name and set its proof; keep it if the proof and dciodvfy pass.

    Raises
    ------
    InconsistencyError
        PROOF_FAILED.
    EncodingError
        INVALID_OBJECT.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = _Kept(out)
    try:
        yield kept
        kept.keep()
    finally:
        kept.path.unlink(missing_ok=True)

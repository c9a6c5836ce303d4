"""Read label maps and masks: NIfTI, NRRD and MetaImage, as integers with an affine in LPS.

Nothing is guessed: an image without coordinates, with a sheared affine, with several volumes or with values that are no
label values is refused.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import InputError
from ctenrich.geometry import ras_to_lps
from ctenrich.gzip_files import check_gzip
from ctenrich.reasons import Reason
from ctenrich.records import Matrix4

__all__ = ["IMAGE_SUFFIXES", "LabelName", "MaskImage", "image_stem", "label_names", "open_image", "whole_numbers"]

_NIFTI = (".nii", ".nii.gz")
_ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
IMAGE_SUFFIXES = (*_NIFTI, *_ITK)
"""Endings of the images that are read."""
_SHEAR = 1e-3
"""Largest cosine between two axes of an image; 1e-3 moves the far corner of a head by less than a pixel."""
_FORMS_DIFFER = 0.01
"""mm by which the two affines of a NIfTI header may differ at the corners of the image."""
_CARET = re.compile(rb"<Label\b[^>]*\bKey=\"(\d+)\"[^>]*>(.*?)</Label>", re.DOTALL)
_LARGEST = 65535
_MOST_PACKED = 1100
"""Bytes that a byte of a gzip file can hold; more than deflate allows is damage."""


@dataclass(frozen=True, kw_only=True)
class LabelName:
    """One label that an image itself names."""

    value: int
    name: str
    layer: int = 0


@dataclass(frozen=True, kw_only=True)
class MaskImage:
    """One image: its voxels in the order of the file, and where they are."""

    array: NDArray[Any] = field(repr=False)
    """[k, j, i], or [k, j, i, layer]."""
    affine_lps: Matrix4
    """(i, j, k, 1) -> mm, LPS."""
    slope: float = 1.0
    """Value = slope * stored value + intercept, where the image was opened with ``scaled=False``."""
    intercept: float = 0.0

    def layer(self, index: int) -> NDArray[Any]:
        """One layer, [k, j, i]."""
        if self.array.ndim == 4:
            return self.array[..., index]
        return self.array


def image_stem(name: str) -> str:
    """Name of an image without its ending: ``liver`` for ``liver.nii.gz`` and ``liver.seg.nrrd``."""
    lower = name.lower()
    suffix = next((s for s in sorted(IMAGE_SUFFIXES, key=len, reverse=True) if lower.endswith(s)), "")
    stem = name[: len(name) - len(suffix)]
    return stem[:-4] if stem.lower().endswith(".seg") else stem


def open_image(path: Path, *, scaled: bool = True) -> MaskImage:
    """Read an image.

    Parameters
    ----------
    path : Path
        NIfTI, NRRD or MetaImage.
    scaled : bool
        Whether the scaling of a NIfTI header is applied to the voxels; otherwise they are those that are stored.

    Returns
    -------
    MaskImage

    Raises
    ------
    InputError
        DECODE_ERROR if it cannot be read; BAD_MASK if it has several volumes, or values that are no numbers;
        MISSING_GEOMETRY if it states no coordinates in the patient; NOT_ORTHOGONAL if its affine is sheared.
    """
    image = _open_nifti(path, scaled) if path.name.lower().endswith(_NIFTI) else _open_itk(path)
    _check_affine(np.asarray(image.affine_lps), path.name)
    return image


def whole_numbers(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return the voxels as unsigned integers.

    Parameters
    ----------
    array : array of numbers
        Voxels as they were stored.
    name : str
        Of the file, for the message.

    Returns
    -------
    array of uint8 or uint16
        The array itself where it is of such a type.

    Raises
    ------
    InputError
        BAD_MASK for values that are not whole, negative, not finite or above 65535.
    """
    if array.dtype in (np.uint8, np.uint16):
        return array
    if array.dtype == bool:
        return array.view(np.uint8)
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(Reason.BAD_MASK, f"{name} has voxels that are no numbers (NaN or infinite)")
    if low < 0 or high > _LARGEST:
        raise InputError(Reason.BAD_MASK, f"{name} has values from {low:g} to {high:g}: labels are 0 to {_LARGEST}")
    out = array.astype(np.uint8 if high < 256 else np.uint16)
    if array.dtype.kind == "f" and not np.array_equal(out, array):
        odd = float(array[out != array].flat[0])
        hint = "probabilities are not masks: choose a threshold, and write its mask"
        raise InputError(Reason.BAD_MASK, f"{name} has values that are not whole numbers, e.g. {odd:g}", hint)
    return out


def label_names(path: Path) -> tuple[LabelName, ...]:
    """Labels that an image names itself: segments of 3D Slicer (NRRD), label table of Connectome (NIfTI).

    Raises
    ------
    InputError
        DECODE_ERROR if the header cannot be read.
    """
    return _nifti_labels(path) if path.name.lower().endswith(_NIFTI) else _slicer_labels(path)


# ---------------------------------------------------------------- NIfTI


def _load_nifti(path: Path) -> Any:
    import nibabel  # takes long to import

    try:
        return nibabel.load(path)
    except Exception as error:  # nibabel raises whatever zlib, numpy and itself raise
        raise InputError(Reason.DECODE_ERROR, f"{path.name} cannot be read as NIfTI") from error


def _open_nifti(path: Path, scaled: bool) -> MaskImage:
    image = _load_nifti(path)
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        size = " x ".join(map(str, image.shape))
        raise InputError(Reason.BAD_MASK, f"{path.name} has {size} voxels: one volume of 3 dimensions is read")
    affine = _nifti_affine(image, shape, path.name)
    try:
        proxy = image.dataobj
        plain = not scaled or (proxy.slope, proxy.inter) == (1, 0)
        array = _unpacked(path, proxy, shape) if plain and path.name.lower().endswith(".gz") else None
        if array is None:
            array = np.asanyarray(proxy if scaled else proxy.get_unscaled()).reshape(shape, order="F")
    except Exception as error:  # as above
        raise InputError(Reason.DECODE_ERROR, f"the voxels of {path.name} cannot be read") from error
    if array.dtype.kind not in "biuf":
        raise InputError(Reason.BAD_MASK, f"{path.name} holds colours or complex numbers, not one number in a voxel")
    slope, intercept = (1.0, 0.0) if scaled else (float(proxy.slope), float(proxy.inter))
    turned = array.transpose(2, 1, 0)
    return MaskImage(array=turned, affine_lps=ras_to_lps(affine), slope=slope, intercept=intercept)


def _unpacked(path: Path, proxy: Any, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Stored voxels of a gzip file, [i, j, k], by libdeflate, in an eighth of the time of zlib.

    Returns
    -------
    array or None
        None for what nibabel has to read: several members, or more bytes than the header states.

    Raises
    ------
    zlib.error, OSError, EOFError
        If a checksum is wrong, which nibabel does not look at.
    """
    size = int(proxy.offset) + math.prod(shape) * proxy.dtype.itemsize
    packed = path.read_bytes()
    if int.from_bytes(packed[-4:], "little") != size % 2**32 or size > _MOST_PACKED * len(packed):
        return None
    import imagecodecs  # large, and needed for few files

    out: NDArray[Any] = np.empty(size, np.uint8)
    try:
        if len(imagecodecs.gzip_decode(packed, out=out.data)) != size:
            return None
    except RuntimeError:
        check_gzip(path, size)
        return None
    voxels: NDArray[Any] = out[int(proxy.offset) :].view(proxy.dtype)
    return voxels.reshape(shape, order="F")


def _nifti_affine(image: Any, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    """Affine in RAS; the two that a header can have must agree."""
    forms = [
        np.asarray(m, float) for m in (image.get_sform(coded=True)[0], image.get_qform(coded=True)[0]) if m is not None
    ]
    if not forms:
        raise InputError(Reason.MISSING_GEOMETRY, f"{name} states no coordinates (sform and qform have code 0)")
    if not all(np.isfinite(m).all() for m in forms):
        raise InputError(Reason.MISSING_GEOMETRY, f"the affine of {name} is not of numbers")
    if len(forms) == 2:
        apart = _corner_distance(forms[0], forms[1], shape)
        if apart > _FORMS_DIFFER:
            _check_affine(np.asarray(ras_to_lps(forms[0])), name)  # the qform cannot express a shear
            message = f"sform and qform of {name} place it up to {apart:.3g} mm apart"
            raise InputError(Reason.MISSING_GEOMETRY, message, "remove the wrong one from the header")
    if image.header.get_xyzt_units()[0] not in ("mm", "unknown"):
        raise InputError(Reason.MISSING_GEOMETRY, f"the coordinates of {name} are not in mm")
    return forms[0]


def _corner_distance(one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    ends = [(0, n - 1) for n in shape]
    corners = np.array([[i, j, k, 1] for i in ends[0] for j in ends[1] for k in ends[2]])
    return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())


def _nifti_labels(path: Path) -> tuple[LabelName, ...]:
    found: list[LabelName] = []
    for extension in _load_nifti(path).header.extensions:
        content = extension.get_content()
        content = content if isinstance(content, bytes) else str(content).encode()
        for key, name in _CARET.findall(content):
            text = name.decode("utf-8", "replace").strip().removeprefix("<![CDATA[").removesuffix("]]>")
            found.append(LabelName(value=int(key), name=text))
    return tuple(found)


# ---------------------------------------------------------------- NRRD, MetaImage


def _reader(path: Path) -> Any:
    itk: Any = import_module("SimpleITK")  # takes long to import
    reader = itk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(Reason.DECODE_ERROR, f"{path.name} cannot be read") from error
    return reader


def _open_itk(path: Path) -> MaskImage:
    reader = _reader(path)
    if reader.GetDimension() != 3:
        size = " x ".join(map(str, reader.GetSize()))
        raise InputError(Reason.BAD_MASK, f"{path.name} has {size} voxels: one volume of 3 dimensions is read")
    if path.suffix.lower() in (".nrrd", ".nhdr") and not _has_space(path):
        raise InputError(Reason.MISSING_GEOMETRY, f"{path.name} states no space: where it is in the patient is unknown")
    try:
        image = reader.Execute()
        array = import_module("SimpleITK").GetArrayFromImage(image)
    except RuntimeError as error:
        raise InputError(Reason.DECODE_ERROR, f"the voxels of {path.name} cannot be read") from error
    if array.dtype.kind not in "biuf":
        raise InputError(Reason.BAD_MASK, f"{path.name} holds colours or complex numbers, not one number in a voxel")
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    rows = tuple(tuple(float(v) for v in row) for row in affine)
    return MaskImage(array=array, affine_lps=rows)  # type: ignore[arg-type]


def _has_space(path: Path) -> bool:
    """Whether a NRRD header names its space and where its first voxel is."""
    with path.open("rb") as file:
        header = file.read(1 << 16).split(b"\n\n")[0].split(b"\r\n\r\n")[0].lower()
    return re.search(rb"^space:", header, re.MULTILINE) is not None and b"space origin:" in header


def _slicer_labels(path: Path) -> tuple[LabelName, ...]:
    reader = _reader(path)
    values = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys() if key.startswith("Segment")}
    found = []
    for key in sorted(values):
        match = re.fullmatch(r"Segment(\d+)_Name", key)
        start = f"Segment{match[1]}" if match else ""
        if match and f"{start}_LabelValue" in values:
            value, layer = values[f"{start}_LabelValue"], values.get(f"{start}_Layer", "0")
            found.append(LabelName(value=int(value), name=values[key], layer=int(layer)))
    return tuple(found)


# ---------------------------------------------------------------- geometry


def _check_affine(affine: NDArray[np.float64], name: str) -> None:
    axes = affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(affine).all() or (lengths <= 0).any():
        raise InputError(Reason.MISSING_GEOMETRY, f"the affine of {name} has an axis without length")
    cosines = (axes / lengths).T @ (axes / lengths) - np.eye(3)
    worst = float(np.abs(cosines).max())
    if worst > _SHEAR:
        angle = float(np.degrees(np.arcsin(min(worst, 1.0))))
        message = f"the affine of {name} is sheared: two of its axes are {angle:.2g} degrees off a right angle"
        raise InputError(Reason.NOT_ORTHOGONAL, message, "resample the masks on the grid of the CT")

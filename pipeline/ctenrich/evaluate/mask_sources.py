"""Masks to compare, on the grids of the series of a run: its products, and SEG, RTSTRUCT and NIfTI files of others."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.codes.mappings import find_segment, general_name, numbered_name
from ctenrich.contours.choice import choose_rois
from ctenrich.contours.raster import grid_of, rasterise
from ctenrich.contours.rtstruct import link_to, load_contours
from ctenrich.dicom.references import read_object_header
from ctenrich.dicom.sop_classes import RT_STRUCTURE_SET, SEGMENTATION_CLASSES
from ctenrich.errors import CtenrichError, InputError, UsageError
from ctenrich.evaluate.other_segs import read_other_segs
from ctenrich.geometry import affine_lps, lps_to_ras, match_array
from ctenrich.gzip_files import check_nifti_gzip
from ctenrich.masks import full_mask
from ctenrich.reasons import Reason
from ctenrich.records import Product, SegmentMasks, Severity, SortedSeries
from ctenrich.series_store import SeriesStore
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace, input_files

__all__ = ["MaskSet", "RefusedFile", "file_masks", "run_masks"]

Mask = NDArray[np.bool_]
_NIFTI = (".nii", ".nii.gz")
_GRID_TOLERANCE = 0.01
"""mm by which the corners of a NIfTI image and of the series may differ."""
_NONE: frozenset[str] = frozenset()
"""The same empty set for all masks: another one for each takes 216 bytes."""
_SERIES_KEPT, _MASKS_KEPT = 4, 16
"""Records of a run that are kept in memory; masks are compared series by series."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskSet:
    """Masks of one source on the grid of one series."""

    name: str
    """Product, or file."""
    series_instance_uid: str
    read_series: Callable[[], SortedSeries] = field(repr=False)
    """Returns the series; that of a run is read from its record, and the latest few are kept."""
    segments: tuple[tuple[int, str], ...]
    """Number and name of each segment."""
    load: Callable[[int], Mask] = field(repr=False)
    """Segment number -> mask on the grid of the series, [k, j, i]."""
    unsound: frozenset[str] = frozenset()
    """Names of the segments that are not compared: an error was found in what they were made from."""

    @property
    def series(self) -> SortedSeries:
        """The series."""
        return self.read_series()


@dataclass(frozen=True, kw_only=True)
class RefusedFile:
    """A file of others that is not compared, and why."""

    name: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class _StoredMasks:
    """Loads masks of a product of a run; a fraction of the size of a partial function, for a run has many."""

    read: Callable[[str, Product], SegmentMasks]
    uid: str
    product: Product
    workspace: Workspace

    def __call__(self, number: int) -> Mask:
        return full_mask(self.read(self.uid, self.product), number, self.workspace)


def run_masks(workspace: Workspace, *, prefix: str = "") -> Iterator[MaskSet]:
    """Masks of every product of every series of a run; records are read again when the masks are compared.

    Parameters
    ----------
    workspace : Workspace
        The run.
    prefix : str
        Before the product's key in the name of each set, to tell runs apart.
    """
    store = SeriesStore(workspace)
    find_series = lru_cache(_SERIES_KEPT)(partial(store.find_valid, SortedSeries))
    find_masks = lru_cache(_MASKS_KEPT)(partial(store.find_valid, SegmentMasks))
    lists: dict[tuple[tuple[int, str], ...], tuple[tuple[int, str], ...]] = {}
    products: dict[Product, tuple[str, Product]] = {}

    def read_series(uid: str) -> SortedSeries:
        found = find_series(uid)
        return store.sorted_series(uid) if found is None else found

    def read_masks(uid: str, product: Product) -> SegmentMasks:
        found = find_masks(uid, product)
        return store.masks(uid, product) if found is None else found

    for uid in store.series():
        read = partial(read_series, uid)
        for product in store.products(uid) if find_series(uid) is not None else ():
            masks = find_masks(uid, product)
            if masks is not None:
                segments = tuple((s.number, s.name) for s in masks.segments)
                name, _ = products.setdefault(masks.product, (f"{prefix}{masks.product}", masks.product))
                _, known = products.setdefault(product, (f"{prefix}{product}", product))
                yield MaskSet(
                    name=name,
                    series_instance_uid=uid,
                    read_series=read,
                    segments=lists.setdefault(segments, segments),
                    load=_StoredMasks(read_masks, uid, known, workspace),
                    unsound=frozenset(i.object for i in masks.issues if i.severity is Severity.ERROR) or _NONE,
                )


def file_masks(
    top: Path, workspace: Workspace, settings: Settings
) -> tuple[tuple[MaskSet, ...], tuple[RefusedFile, ...]]:
    """Read the masks in a file, or in the files of a folder: SEG, RTSTRUCT and NIfTI of any maker.

    SEGs and structure sets belong to the series of the run that they refer to. A NIfTI image belongs to the series
    whose Series Instance UID is in its path, else to the only one that has its grid; its axes may be turned. It holds
    one structure, named like the file, or a label map, whose names are those of ``dataset.json`` (nnU-Net),
    ``segments.json`` (``ctenrich export``) or ``labels.json`` (name -> value) in its folder.

    Parameters
    ----------
    top : Path
        File or folder.
    workspace : Workspace
        The run whose series the masks belong to.
    settings : Settings
        Of the run: limits of SEGs, choice of ROIs.

    Returns
    -------
    masks : tuple of MaskSet
        One per file and series; NIfTI files of one folder that belong to one series are one set.
    refused : tuple of RefusedFile
        Files that are not compared.

    Raises
    ------
    UsageError
        NOT_FOUND if the path does not exist or holds no such file.
    """
    if not top.exists():
        raise UsageError(Reason.NOT_FOUND, f"there is no {top}", "name a product of the run, or a file or folder")
    store = SeriesStore(workspace)
    known = {uid: series for uid in store.series() if (series := store.find_valid(SortedSeries, uid)) is not None}
    files = input_files(top)
    refused: list[RefusedFile] = []
    kinds = {path: kind for path in files for kind in _caught(path, refused, lambda p: [_kind_of(p)])}
    found = [*_seg_sets([p for p in files if kinds.get(p) == "seg"], store, settings, refused)]
    for path in (p for p in files if kinds.get(p) == "rtstruct"):
        found += _caught(path, refused, lambda p: _structure_sets(p, known, settings))
    images: dict[tuple[Path, str], list[Path]] = {}
    for path in (p for p in files if kinds.get(p) == "nifti"):
        for uid in _caught(path, refused, lambda p: [_series_of_image(p, known)]):
            images.setdefault((path.parent, uid), []).append(path)
    for (folder, uid), paths in images.items():
        found += _image_sets(folder, paths, known[uid], refused)
    if not found and not refused:
        raise UsageError(Reason.NOT_FOUND, f"there is no SEG, RTSTRUCT or NIfTI file in {top}")
    return tuple(found), tuple(refused)


def _set_of(
    name: str, series: SortedSeries, segments: tuple[tuple[int, str], ...], load: Callable[[int], Mask]
) -> MaskSet:
    """Masks of a file on a series that has been read."""
    uid = series.series_instance_uid
    return MaskSet(name=name, series_instance_uid=uid, read_series=lambda: series, segments=segments, load=load)


def _kind_of(path: Path) -> str:
    """``seg``, ``rtstruct``, ``nifti``, or empty for another file."""
    if path.name.lower().endswith(_NIFTI):
        return "nifti"
    head = read_object_header(path)
    if head is None:
        return ""
    return "seg" if head.sop_class in SEGMENTATION_CLASSES else "rtstruct" if head.sop_class == RT_STRUCTURE_SET else ""


def _caught(path: Path, refused: list[RefusedFile], read: Callable[[Path], Sequence[Any]]) -> Sequence[Any]:
    """What a reader returns; an error of one file is kept beside the results of the others."""
    try:
        return read(path)
    except CtenrichError as error:
        refused.append(RefusedFile(name=path.as_posix(), reason=error.reason, message=error.message))
    except MemoryError:
        text = "its masks do not fit into memory"
        refused.append(RefusedFile(name=path.as_posix(), reason=Reason.OUT_OF_MEMORY, message=text))
    return ()


# ---------------------------------------------------------------- DICOM


def _seg_sets(
    paths: Sequence[Path], store: SeriesStore, settings: Settings, refused: list[RefusedFile]
) -> Iterator[MaskSet]:
    for one in read_other_segs(paths, store=store, source=None, limits=settings.seg) if paths else ():
        if one.decoded is None or one.series is None:
            reason = one.reason or Reason.INTERNAL
            refused.append(RefusedFile(name=one.name, reason=reason, message=one.message))
            continue
        yield _set_of(one.name, one.series, one.segments, one.decoded.mask)


def _structure_sets(path: Path, known: Mapping[str, SortedSeries], settings: Settings) -> list[MaskSet]:
    """Sets of a structure set, one for each series that it belongs to; ROIs are drawn when they are needed."""
    structures = load_contours(path, limit=settings.convert.max_unpacked)
    out = []
    for series in known.values():
        if link_to(structures, series) is None:
            continue
        choice = choose_rois(structures, series, settings.contours)
        choice.check()
        grid = grid_of(series)
        rois = {number: one.rois for number, one in enumerate(choice.chosen, 1)}

        def draw(number: int, rois: Any = rois, grid: Any = grid) -> Mask:
            drawn = [rasterise(r.contours, grid, nesting=settings.contours.nesting).mask for r in rois[number]]
            return np.asarray(np.logical_or.reduce(drawn))

        segments = tuple((number, one.name) for number, one in enumerate(choice.chosen, 1))
        out.append(_set_of(path.as_posix(), series, segments, draw))
    if not out:
        raise InputError(Reason.NO_REFERENCE, "it refers to no series of the run")
    return out


# ---------------------------------------------------------------- NIfTI


def _image_header(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Shape and affine (RAS) of a NIfTI image."""
    import nibabel  # imported late: it takes long to import, and most references are DICOM

    try:
        image: Any = nibabel.load(path)
        return tuple(int(n) for n in image.shape), np.asarray(image.affine, float)
    except Exception as error:  # nibabel raises whatever zlib, numpy and itself raise
        raise InputError(Reason.DECODE_ERROR, "the NIfTI image cannot be read") from error


def _image_array(path: Path, series: SortedSeries) -> NDArray[Any]:
    """Voxels along the axes of the series, [k, j, i]."""
    import nibabel

    try:
        image: Any = nibabel.load(path)
        array = np.asanyarray(proxy := image.dataobj)
        check_nifti_gzip(path, int(proxy.offset), array.size, proxy.dtype.itemsize)
    except Exception as error:
        raise InputError(Reason.DECODE_ERROR, "the NIfTI image cannot be read") from error
    view, _ = match_array(array, np.asarray(image.affine, float), _affine_ras(series))
    return np.asarray(view.transpose(2, 1, 0))


def _affine_ras(series: SortedSeries) -> NDArray[np.float64]:
    first, last = series.slices[0].position, series.slices[-1].position
    step = (np.array(last) - first) / max(len(series.slices) - 1, 1)
    affine = affine_lps(first, series.row_cosines, series.column_cosines, series.pixel_spacing, step.tolist())
    return np.array(lps_to_ras(np.array(affine)))


def _series_of_image(path: Path, known: Mapping[str, SortedSeries]) -> str:
    shape, affine = _image_header(path)
    named = [uid for uid in known if uid in path.as_posix()]
    fitting = [uid for uid in named or known if _has_grid(shape, affine, known[uid])]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        text = f"{len(fitting)} series of the run have its grid, and its path contains no Series Instance UID"
        raise InputError(Reason.NO_REFERENCE, text)
    where = "the series in its path" if named else "any series of the run"
    raise InputError(Reason.NO_REFERENCE, f"its grid is not that of {where}")


def _has_grid(shape: tuple[int, ...], affine: NDArray[np.float64], series: SortedSeries) -> bool:
    if len(shape) != 3:
        return False
    target = _affine_ras(series)
    try:
        view, turned = match_array(np.broadcast_to(np.zeros((), np.uint8), shape), affine, target)
    except ValueError:
        return False
    if view.shape[::-1] != series.shape:
        return False
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * [*np.array(view.shape) - 1, 1]
    return bool(np.abs(corners @ (np.array(turned) - target).T).max() <= _GRID_TOLERANCE + 0.001 * series.slice_spacing)


def _image_sets(
    folder: Path, paths: Sequence[Path], series: SortedSeries, refused: list[RefusedFile]
) -> Iterator[MaskSet]:
    """The set of the NIfTI images of one folder and series: single structures, and label maps with names."""
    names = _label_names(folder)
    single = [p for p in paths if _stem(p) != "labels"]
    places: dict[int, tuple[Path, int | None]] = {}
    segments: list[tuple[int, str]] = []
    seen: Counter[str] = Counter()
    for path in single or paths:
        for label, value in _caught(path, refused, lambda p: _labels_of(p, series, names)):
            code = find_segment(label)
            plain = code.name if code else general_name(label)
            seen[plain] += 1
            segments.append((len(segments) + 1, numbered_name(plain, seen[plain])))
            places[len(segments)] = (path, value)

    def load(number: int) -> Mask:
        path, value = places[number]
        array = _image_array(path, series)
        return np.ascontiguousarray(array != 0 if value is None else array == value)

    if segments:
        name = (paths[0] if len(paths) == 1 else folder).as_posix()
        yield _set_of(name, series, tuple(segments), load)


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _labels_of(path: Path, series: SortedSeries, names: Mapping[int, str]) -> list[tuple[str, int | None]]:
    """Name and label value of each structure of an image; the value is None where every voxel but 0 counts."""
    values = [int(v) for v in np.unique(_image_array(path, series)) if v != 0]
    if len(values) > 1:
        if not names:
            text = f"it is a label map with {len(values)} values, which no {', '.join(_DESCRIPTIONS)} names"
            raise InputError(Reason.UNMAPPED_LABEL, text)
        return [(name, value) for value, name in sorted(names.items())]
    if names and values and _stem(path) == "labels":
        return [(name, value) for value, name in sorted(names.items())]
    return [(re.sub(r"^\d+_", "", _stem(path)), None)]


def _label_names(folder: Path) -> dict[int, str]:
    """Label value -> name, from a description in the folder; empty if there is none."""
    for name, read in _DESCRIPTIONS.items():
        try:
            found = json.loads((folder / name).read_bytes())
            return {int(value): str(label) for label, value in read(found) if int(value) != 0}
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(Reason.BAD_PARAMETER, f"{name} does not describe labels") from error
    return {}


_DESCRIPTIONS: dict[str, Callable[[Any], Iterator[tuple[str, Any]]]] = {
    "dataset.json": lambda found: iter(found["labels"].items()),
    "segments.json": lambda found: ((s["label"], s["number"]) for s in found["segments"]),
    "labels.json": lambda found: iter(found.items()),
}

"""Measure the shape features of the segments of a product."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

from ctenrich import __version__
from ctenrich.errors import UsageError
from ctenrich.masks import Mask, crop_of
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Issue, Segment, SegmentMasks, SegmentShape, Severity, ShapeMeasurements, Volume
from ctenrich.settings import Settings
from ctenrich.shape import pyradiomics
from ctenrich.shape.engine import dimensions, measure_primitives, moments
from ctenrich.shape.features import SHAPE_FEATURES, ShapePrimitives, shape_features
from ctenrich.shape.pyradiomics_features import Radiomics
from ctenrich.workspace import Workspace, load_array

__all__ = ["DEFINITION", "ENGINES", "measure_mask", "measure_segment", "measure_shape"]

ENGINES = ("fast", "pyradiomics")
DEFINITION = "pyradiomics 3 shape; mask cropped to its bounding box and padded by one voxel; axes [k, j, i] as in DICOM"
"""Definition of the numbers for every engine; part of the hash of the settings."""


def measure_shape(
    masks: SegmentMasks,
    volume: Volume,
    *,
    settings: Settings,
    workspace: Workspace,
    progress: Progress = SILENT,
) -> ShapeMeasurements:
    """Measure every segment; all features of an absent one are omitted, with the reason.

    Parameters
    ----------
    masks : SegmentMasks
        Masks on the grid of `volume`.
    volume : Volume
        Its spacing (k, j, i) in mm; its voxels (HU) are read only for features of `measure.radiomics`.
    settings : Settings
        ``settings.measure``: engine, parameter file of pyradiomics.
    workspace : Workspace
        Folder of the run.
    progress : Progress
        Receives one step per segment.

    Returns
    -------
    ShapeMeasurements
        One item per segment.

    Raises
    ------
    UsageError
        BAD_SETTINGS for an unknown engine, MISSING_EXTRA if pyradiomics is wanted and not installed.
    """
    engine = settings.measure.engine
    if engine not in ENGINES:
        raise UsageError(Reason.BAD_SETTINGS, f"unknown engine {engine!r}", f"known: {', '.join(ENGINES)}")
    if masks.shape != volume.shape:
        raise UsageError(Reason.BAD_RUN, "the masks are on another grid than the volume")
    progress.start("shape", len(masks.segments))
    segments: list[SegmentShape] = []
    issues: list[Issue] = []
    chosen = settings.measure.radiomics
    more = Radiomics(Path(chosen)) if chosen else None
    array = load_array(workspace.resolve(volume.series_instance_uid, volume.array_path)) if more else None
    for segment in masks.segments:
        crop = crop_of(masks, segment.number, workspace)
        shape = measure_segment(segment, None if crop is None else crop[0], volume.spacing, engine)
        if more is not None and array is not None and crop is not None:
            found = more.measure(array, *crop, volume.spacing)
            values, omitted = shape.values | found.coded, shape.omitted | found.omitted
            shape = SegmentShape(segment.number, segment.name, values, omitted, found.values)
        segments.append(shape)
        issues += _undefined_feature_issues(segment, shape)
        progress.advance("shape")
    progress.finish("shape")
    by_pyradiomics = engine == "pyradiomics"
    return ShapeMeasurements(
        product=masks.product,
        series_instance_uid=masks.series_instance_uid,
        segments=tuple(segments),
        engine=engine,
        algorithm_name="pyradiomics" if by_pyradiomics else "ctenrich shape",
        algorithm_version=pyradiomics.version() if by_pyradiomics else __version__,
        settings_sha256=_sha256_of_json({"engine": engine, "definition": DEFINITION, "features": SHAPE_FEATURES}),
        sha256=_sha256_of_json([[s.number, s.name, s.values, s.omitted, s.radiomics] for s in segments]),
        issues=tuple(issues),
        radiomics_version=more.version if more else "",
        radiomics_sha256=more.sha256 if more else "",
        radiomics_parameters=more.parameters if more else (),
    )


def measure_segment(
    segment: Segment, mask: Mask | None, spacing: tuple[float, float, float], engine: str
) -> SegmentShape:
    """Features of one segment from its cropped mask.

    Parameters
    ----------
    segment : Segment
    mask : array of bool, [k, j, i], or None
        None for an absent segment.
    spacing : (float, float, float)
        mm, axes [k, j, i].
    engine : str
        One of `ENGINES`.

    Returns
    -------
    SegmentShape
    """
    values, omitted = shape_features(None if mask is None else measure_mask(mask, spacing, engine))
    for name in [name for name, value in values.items() if not math.isfinite(value)]:
        del values[name]
        omitted[name] = "the value is not a finite number"
    return SegmentShape(segment.number, segment.name, values, omitted)


def measure_mask(mask: Mask, spacing: tuple[float, float, float], engine: str = "fast") -> ShapePrimitives:
    """Measure a mask that is cropped to its bounding box.

    Parameters
    ----------
    mask : array of bool, [k, j, i]
        At least one voxel.
    spacing : (float, float, float)
        mm, axes [k, j, i].
    engine : str
        One of `ENGINES`.

    Returns
    -------
    ShapePrimitives
    """
    if engine == "fast":
        return measure_primitives(mask, spacing)
    return pyradiomics.measure_primitives(mask, spacing, dimensions(moments(mask)))


def _undefined_feature_issues(segment: Segment, shape: SegmentShape) -> list[Issue]:
    """One note for each reason why features of a present segment are missing."""
    if segment.absent:
        return []
    reasons: dict[str, list[str]] = {}
    for feature, reason in shape.omitted.items():
        reasons.setdefault(reason, []).append(feature)
    return [
        Issue(
            "shape.undefined",
            Severity.NOTE,
            segment.name,
            f"{reason}: without {', '.join(features)}",
            "ctenrich.measure",
        )
        for reason, features in reasons.items()
    ]


def _sha256_of_json(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

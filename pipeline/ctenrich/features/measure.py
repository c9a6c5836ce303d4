"""Make the feature vectors of a product: one per feature model and segment, or one of the whole volume."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import InputError
from ctenrich.features.crop import NetworkInput, VolumeInput
from ctenrich.features.kinds import FeatureModel, parse_features
from ctenrich.features.vectors import floats_sha256, load_vectors
from ctenrich.masks import crop_of
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import (
    FeatureVector,
    FeatureVectors,
    Issue,
    ModelVectors,
    Quantity,
    Segment,
    SegmentMasks,
    Severity,
    Volume,
)
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace, load_array, save_array

__all__ = ["RequestedFeatures", "measure_features"]

Floats = NDArray[np.float32]
_OUTSIDE = 0.5
"""Share of an input outside of the volume from which on a vector gets a warning."""


@dataclass(frozen=True, kw_only=True)
class RequestedFeatures:
    """A feature model of a run, loaded."""

    spec: str
    """Specification of the settings, with the identity of the model."""
    model: FeatureModel

    @property
    def shown(self) -> str:
        """Specification without identity, and without the folder of the model."""
        parsed = parse_features(self.spec)
        return f"{parsed.kind}:{Path(parsed.model).name}"


@dataclass
class _Rows:
    """Vectors of one model as they are made."""

    vectors: list[FeatureVector] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)
    omitted: dict[str, str] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)

    def add(self, segment: Segment | None, given: NetworkInput, values: Floats) -> None:
        name = segment.name if segment else ""
        if not np.isfinite(values).all():
            self.omitted[name] = "the network returned values that are not finite"
            text = f"{name or 'the volume'} has no vector: {self.omitted[name]}"
            self.issues.append(Issue("features.not_finite", Severity.WARNING, name, text))
            return
        if given.outside > _OUTSIDE:
            text = f"{100 * given.outside:.0f} % of the network's input are outside of the volume"
            self.issues.append(Issue("features.outside", Severity.WARNING, name, text))
        norm = float(np.sqrt(np.sum(values.astype(np.float64) ** 2)))
        self.vectors.append(
            FeatureVector(
                number=segment.number if segment else None,
                name=name,
                norm=norm,
                outside=given.outside,
                input_sha256=floats_sha256(given.data),
                sha256=floats_sha256(values),
            )
        )
        self.values.append(values)


def measure_features(
    masks: SegmentMasks,
    volume: Volume,
    requested: tuple[RequestedFeatures, ...],
    *,
    workspace: Workspace,
    progress: Progress = SILENT,
) -> FeatureVectors:
    """Make the vectors of all feature models for a product, and save their arrays.

    A vector of the whole volume that another product of the series has already is taken over.

    Parameters
    ----------
    masks : SegmentMasks
        The segments; absent ones have no vector.
    volume : Volume
        The volume of the series.
    requested : tuple of RequestedFeatures
        The loaded models.
    workspace : Workspace
        Folder of the run.
    progress : Progress
        Advanced by every vector.

    Returns
    -------
    FeatureVectors
        The record, which is not saved.

    Raises
    ------
    InputError
        WRONG_MODALITY if the volume is not in Hounsfield units.
    ModelError
        BAD_MODEL if a network cannot take its input.
    """
    if volume.quantity is not Quantity.HU:
        raise InputError(Reason.WRONG_MODALITY, "feature models need a CT volume in Hounsfield units")
    array = load_array(workspace.resolve(volume.series_instance_uid, volume.array_path))
    source = VolumeInput(array, volume.affine_lps, volume.spacing)
    found = []
    issues: list[Issue] = []
    folder = SeriesStore(workspace).features_dir(masks.series_instance_uid, masks.product)
    for number, one in enumerate(requested, start=1):
        if one.model.crop.needs_structure:
            rows = _structure_rows(one.model, masks, source, workspace, progress)
        else:
            rows = _volume_rows(one.model, masks, volume, source, workspace)
        path = folder / f"{number:02d}-{one.model.info.name}.npy"
        save_array(path, np.stack(rows.values) if rows.values else np.zeros((0, one.model.length), np.float32))
        issues += rows.issues
        found.append(
            ModelVectors(
                spec=one.shown,
                model=one.model.info,
                length=one.model.length,
                crop=str(one.model.crop),
                array_path=workspace.relative(masks.series_instance_uid, path),
                vectors=tuple(rows.vectors),
                omitted=rows.omitted,
            )
        )
    return FeatureVectors(
        product=masks.product,
        series_instance_uid=masks.series_instance_uid,
        volume_sha256=volume.sha256,
        models=tuple(found),
        issues=tuple(issues),
    )


def _structure_rows(
    model: FeatureModel, masks: SegmentMasks, source: VolumeInput, workspace: Workspace, progress: Progress
) -> _Rows:
    rows = _Rows()
    progress.start("features", len(masks.segments))
    for segment in masks.segments:
        progress.advance("features")
        if model.structures and segment.name not in model.structures:
            rows.omitted[segment.name] = "the model is not for this structure"
            continue
        cropped = crop_of(masks, segment.number, workspace)
        if cropped is None:
            rows.omitted[segment.name] = "the segment is absent"
            continue
        given = source.of_structure(model.crop, *cropped)
        rows.add(segment, given, model.vector(given.data))
    progress.finish("features")
    return rows


def _volume_rows(
    model: FeatureModel, masks: SegmentMasks, volume: Volume, source: VolumeInput, workspace: Workspace
) -> _Rows:
    rows = _Rows()
    given = source.of_volume(model.crop)
    known = _known_vector(model, masks, volume, floats_sha256(given.data), workspace)
    rows.add(None, given, known if known is not None else model.vector(given.data))
    return rows


def _known_vector(
    model: FeatureModel, masks: SegmentMasks, volume: Volume, input_sha256: str, workspace: Workspace
) -> Floats | None:
    """The vector of the whole volume by the same model of the same input, in the records of another product."""
    store = SeriesStore(workspace)
    uid = masks.series_instance_uid
    for product in store.products(uid):
        other = store.find_valid(FeatureVectors, uid, product) if product != masks.product else None
        for one in other.models if other is not None and other.volume_sha256 == volume.sha256 else ():
            same = one.model.sha256 == model.info.sha256
            if same and [v.input_sha256 for v in one.vectors] == [input_sha256]:
                values = load_vectors(one, uid, workspace)
                if values is not None and floats_sha256(values[0]) == one.vectors[0].sha256:
                    first: Floats = values[0]
                    return first
    return None

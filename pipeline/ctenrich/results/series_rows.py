"""Rows of the run tables of one series, from its records."""

from __future__ import annotations

from typing import Any, TypeVar

from ctenrich.dicom.datetimes import age_in_years
from ctenrich.features.vectors import floats_sha256, load_vectors
from ctenrich.records import (
    EncodedObjects,
    FeatureVectors,
    Landmarks,
    Product,
    ProductKind,
    Proof,
    Regions,
    SegmentMasks,
    ShapeMeasurements,
    SliceScores,
    SortedSeries,
    StructureRois,
)
from ctenrich.results.organs import organ_rows
from ctenrich.results.rows import viewer_url
from ctenrich.series_store import SeriesStore
from ctenrich.structure_names.standard import standard_name_of
from ctenrich.structure_names.treated_side import find_treated_side
from ctenrich.workspace import Workspace

__all__ = ["RECORD_TABLES", "add_record_rows"]

Row = dict[str, Any]
T = TypeVar("T")

RECORD_TABLES = (
    "series",
    "slices",
    "objects",
    "segments",
    "rois",
    "landmarks",
    "radiomics_features",
    "deep_features",
    "proofs",
    "organs",
)
"""Tables whose rows come from the records of a series."""


class _RecordsOnce(SeriesStore):
    """The store of one series, of which each record is read once."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self._found: dict[tuple[type, str, Product | None], Any] = {}

    def find_valid(self, record: type[T], uid: str, product: Product | None = None) -> T | None:
        key = (record, uid, product)
        if key not in self._found:
            self._found[key] = super().find_valid(record, uid, product)
        found: T | None = self._found[key]
        return found


def add_record_rows(workspace: Workspace, uid: str, cohort: Row, rows: dict[str, list[Row]]) -> None:
    """Add the rows of a series to the tables of `RECORD_TABLES`.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    uid : str
        Series Instance UID.
    cohort : dict
        Columns of the cohort file that the table ``series`` repeats, and ``_facts`` and ``_idc``; empty if the cohort
        does not have the series.
    rows : dict
        Table name -> its rows; those of this series are appended.
    """
    store = _RecordsOnce(workspace)
    series: Row = {"SeriesInstanceUID": uid, **cohort}
    scores: tuple[float | None, ...] = ()
    products = tuple(store.products(uid))
    treated = find_treated_side(store, uid, products)
    series |= {"treated_side": treated.word, "treated_side_source": treated.source}
    rows["organs"] += organ_rows(store, uid, products, treated)
    for product in products:
        _product_rows(store, uid, product, rows)
        regions = store.find_valid(Regions, uid, product)
        if regions is not None:
            series["body_part_examined"] = regions.examined
        scored = store.find_valid(SliceScores, uid, product)
        if scored is not None:
            scores = scored.cleaned
    found = store.find_valid(SortedSeries, uid)
    if found is not None:
        series |= _geometry(found)
        rows["slices"] += _slice_rows(found, scores)
    series |= _fact_columns(series.pop("_facts", None) or {})
    if series.pop("_idc", None):
        series["viewer_url"] = viewer_url(series.get("StudyInstanceUID"), uid)
    rows["series"].append(series)


def _fact_columns(facts: Row) -> Row:
    """Attributes of the cohort file's column ``facts`` by their DICOM keywords, and the age as a number."""
    by_keyword = {"".join(word.capitalize() for word in name.split("_")): value for name, value in facts.items()}
    return {**by_keyword, "age_years": age_in_years(facts.get("patient_age") or "")}


def _product_rows(store: SeriesStore, uid: str, product: Product, rows: dict[str, list[Row]]) -> None:
    objects = store.find_valid(EncodedObjects, uid, product)
    rows["objects"] += _object_rows(store.workspace, uid, product, objects) if objects else []
    masks = store.find_valid(SegmentMasks, uid, product)
    rows["segments"] += _segment_rows(masks) if masks else []
    rois = store.find_valid(StructureRois, uid, product)
    rows["rois"] += _roi_rows(rois) if rois else _roi_rows_of_masks(masks)
    shape = store.find_valid(ShapeMeasurements, uid, product)
    rows["radiomics_features"] += _radiomics_rows(shape) if shape else []
    proof = store.find_valid(Proof, uid, product)
    rows["proofs"] += _proof_rows(uid, proof) if proof else []
    features = store.find_valid(FeatureVectors, uid, product)
    rows["deep_features"] += _feature_rows(store.workspace, features) if features else []
    landmarks = store.find_valid(Landmarks, uid, product)
    rows["landmarks"] += _landmark_rows(landmarks) if landmarks else []


def _geometry(found: SortedSeries) -> Row:
    return {
        "StudyInstanceUID": found.study_instance_uid,
        "FrameOfReferenceUID": found.frame_of_reference_uid,
        "slices": len(found.slices),
        "rows": found.rows,
        "columns": found.columns,
        "pixel_spacing_row": found.pixel_spacing[0],
        "pixel_spacing_column": found.pixel_spacing[1],
        "slice_spacing": found.slice_spacing,
    }


def _slice_rows(found: SortedSeries, scores: tuple[float | None, ...]) -> list[Row]:
    return [
        {
            "SeriesInstanceUID": found.series_instance_uid,
            "StudyInstanceUID": found.study_instance_uid,
            "slice_index": index,
            "SOPInstanceUID": one.sop_instance_uid,
            "distance": one.distance,
            **dict(zip("xyz", one.position, strict=True)),
            "score": scores[index] if index < len(scores) else None,
        }
        for index, one in enumerate(found.slices)
    ]


def _object_rows(workspace: Workspace, uid: str, product: Product, objects: EncodedObjects) -> list[Row]:
    """One row per object whose file is there."""
    paths = [(item, workspace.resolve(uid, item.path)) for item in objects.objects]
    return [
        {
            "SOPInstanceUID": item.sop_instance_uid,
            "SOPClassUID": item.sop_class_uid,
            "object_series_uid": item.series_instance_uid,
            "SeriesInstanceUID": uid,
            "product": str(product),
            "kind": str(item.kind),
            "path": path.relative_to(workspace.root).as_posix(),
            "size": path.stat().st_size,
            "sha256": item.sha256,
        }
        for item, path in paths
        if path.is_file()
    ]


def _segment_rows(masks: SegmentMasks) -> list[Row]:
    return [
        {
            "SeriesInstanceUID": masks.series_instance_uid,
            "product": str(masks.product),
            "segment_number": segment.number,
            "segment": segment.name,
            "standard_name": standard_name_of(segment.name) or None,
            "source_label": segment.source_label,
            "voxels": segment.voxels,
            "absent": segment.absent,
        }
        for segment in masks.segments
    ]


def _roi_rows(rois: StructureRois) -> list[Row]:
    unit = rois.voxel_volume / 1000
    return [
        {
            "SeriesInstanceUID": rois.series_instance_uid,
            "product": str(rois.product),
            "structure_set_uid": rois.source_sop_instance_uid,
            "roi_number": roi.number,
            "roi_name": roi.name,
            "segment": roi.segment or None,
            "standard_name": standard_name_of(roi.segment) or None,
            "segment_number": roi.segment_number,
            "dropped": roi.dropped,
            "detail": roi.detail or None,
            "contours": roi.contours,
            "copies": roi.copies,
            "missing_slices": roi.missing_slices,
            **{f"volume_{rule}": voxels * unit for rule, voxels in roi.voxels.items()},
            "images": roi.images,
            "images_found": roi.images_found,
        }
        for roi in rois.items
    ]


def _roi_rows_of_masks(masks: SegmentMasks | None) -> list[Row]:
    """Rows of the ROIs that became segments, from a run of a version that did not record ROIs."""
    if masks is None or masks.product.kind != ProductKind.EXPERT:
        return []
    return [
        {
            "SeriesInstanceUID": masks.series_instance_uid,
            "product": str(masks.product),
            "structure_set_uid": masks.source_sop_instance_uid or None,
            "roi_name": segment.source_label,
            "segment": segment.name,
            "standard_name": standard_name_of(segment.name) or None,
            "segment_number": segment.number,
        }
        for segment in masks.segments
    ]


def _proof_rows(uid: str, proof: Proof) -> list[Row]:
    return [
        {
            "SeriesInstanceUID": uid,
            "product": proof.product,
            "check": check.name,
            "passed": check.passed,
            "detail": check.detail,
        }
        for check in proof.checks
    ]


def _radiomics_rows(shape: ShapeMeasurements) -> list[Row]:
    return [
        {
            "SeriesInstanceUID": shape.series_instance_uid,
            "product": str(shape.product),
            "segment_number": segment.number,
            "segment": segment.name,
            "feature": name,
            "value": value,
            "pyradiomics_version": shape.radiomics_version,
            "settings_sha256": shape.radiomics_sha256,
        }
        for segment in shape.segments
        for name, value in sorted(segment.radiomics.items())
    ]


def _feature_rows(workspace: Workspace, features: FeatureVectors) -> list[Row]:
    """One row per vector whose values are there and have the hash of the record."""
    uid = features.series_instance_uid
    rows = []
    for model in features.models:
        values = load_vectors(model, uid, workspace)
        for index, one in enumerate(model.vectors if values is not None else ()):
            assert values is not None
            if floats_sha256(values[index]) != one.sha256:
                continue
            rows.append(
                {
                    "SeriesInstanceUID": uid,
                    "product": str(features.product),
                    "segment_number": one.number,
                    "segment": one.name or None,
                    "features": model.spec,
                    "model": model.model.name,
                    "model_version": model.model.version or None,
                    "model_sha256": model.model.sha256,
                    "crop": model.crop,
                    "outside": one.outside,
                    "length": model.length,
                    "norm": one.norm,
                    "vector": values[index].astype(float),
                    "vector_sha256": one.sha256,
                    "input_sha256": one.input_sha256,
                }
            )
    return rows


def _landmark_rows(landmarks: Landmarks) -> list[Row]:
    return [
        {
            "SeriesInstanceUID": landmarks.series_instance_uid,
            "product": str(landmarks.product),
            "landmark": item.name,
            "score": item.score,
            "slice_index": item.slice_index,
            "SOPInstanceUID": item.sop_instance_uid,
            "position": item.position,
            "confidence": item.confidence,
            "absent_reason": item.absent_reason,
        }
        for item in landmarks.items
    ]

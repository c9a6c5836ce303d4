"""Encode landmarks as a Comprehensive 3D SR (TID 1500) with one measurement group (TID 1501) per landmark."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ctenrich.codes.mappings import Code, LandmarkCode, load_features, load_landmarks
from ctenrich.encode.context import content_description, identify, read_source, series_description
from ctenrich.encode.files import ObjectTarget, write_object
from ctenrich.encode.sr_content import (
    CONTAINS,
    Algorithm,
    Observer,
    algorithm_items,
    as_code,
    concept,
    container,
    finding_site,
    image,
    measurement,
    measurement_report,
    tracking_items,
)
from ctenrich.encode.sr_document import COMPREHENSIVE_3D_SR, Document, sr_dataset
from ctenrich.errors import EncodingError, InputError
from ctenrich.reasons import Reason
from ctenrich.records import EncodedObject, Landmark, Landmarks, ObjectKind, SliceScores, SortedSeries
from ctenrich.settings import Settings
from ctenrich.uids import derive_uid
from ctenrich.workspace import Workspace

__all__ = ["SERIES_NUMBER", "bodypart_algorithm", "check_slices", "encode_landmarks_sr", "has_landmarks", "units"]

SERIES_NUMBER = 101
DESCRIPTION = "BPR landmark annotations"


def encode_landmarks_sr(
    landmarks: Landmarks,
    scores: SliceScores,
    series: SortedSeries,
    *,
    settings: Settings,
    workspace: Workspace,
) -> EncodedObject:
    """Write the landmarks SR: one measurement group per landmark that is on a slice.

    Parameters
    ----------
    landmarks : Landmarks
        The landmarks of the series.
    scores : SliceScores
        The slice scores that they were derived from.
    series : SortedSeries
        The source series.
    settings : Settings
        ``settings.encode``: dates, deflated copy.
    workspace : Workspace
        Folder of the run.

    Returns
    -------
    EncodedObject
        Record of the written file.

    Raises
    ------
    InputError
        NO_LANDMARKS if no landmark is on a slice: an object without content is not written.
    EncodingError
        ENCODING if the slice of a landmark is not in the series, or mappings/landmarks.csv has no row for a landmark.
    """
    if not has_landmarks(landmarks):
        raise InputError(Reason.NO_LANDMARKS, Reason.NO_LANDMARKS.sentence)
    check_slices([(i.slice_index, i.sop_instance_uid) for i in landmarks.items if i.slice_index is not None], series)
    source = read_source(series, workspace)
    identity = identify(
        "landmarks_sr",
        series,
        landmarks.product,
        settings.encode,
        scores.sha256,
        scores.model.sha256,
        repr(landmarks.items),
    )
    mapped = load_landmarks()
    present = [item for item in landmarks.items if item.slice_index is not None]
    names = {item.name: f"Annotations group landmarks {number}" for number, item in enumerate(present, start=1)}
    groups = [
        _landmark_group(
            item, _landmark_code(item, mapped), scores, series, (names[item.name], identity.uid("tracking", item.name))
        )
        for item in present
    ]
    root = measurement_report(groups, bodypart_observer("BodyPartRegression_landmarks", scores), series)
    document = Document(
        COMPREHENSIVE_3D_SR,
        series_description(DESCRIPTION, landmarks.product, scores.model, names_model=False),
        content_description("Landmarks", landmarks.product, scores.model),
        SERIES_NUMBER,
        frozenset({"99CTENRICH"}),
        scores.model,
    )
    dataset = sr_dataset(document, root, series, source, identity, settings.encode)
    target = ObjectTarget(
        kind=ObjectKind.LANDMARKS_SR, series_instance_uid=series.series_instance_uid, product=landmarks.product
    )
    deflate = settings.encode.deflated_copy
    return write_object(dataset, target, workspace, source.issues, deflated_copy=deflate)


def has_landmarks(landmarks: Landmarks) -> bool:
    """Return whether a landmark is on a slice of the series."""
    return any(item.slice_index is not None for item in landmarks.items)


def units() -> tuple[Code, Code]:
    """Return the units (no units, millimetre) as mappings/features.csv defines them."""
    features = load_features()
    return features["Sphericity"].unit, features["Maximum3DDiameter"].unit


def bodypart_algorithm(scores: SliceScores) -> Algorithm:
    """Build the Algorithm Identification (TID 4019) of the scoring model."""
    model = scores.model
    parameters = (f"weights_sha256={model.sha256}", *(["demonstration=yes"] if model.demo else []))
    return Algorithm("BodyPartRegression", f"{model.name} {model.version}".strip(), parameters)


def bodypart_observer(name: str, scores: SliceScores) -> Observer:
    """Build the device observer (TID 1004), named as in the published annotations."""
    model = scores.model
    uid = derive_uid("device", name, model.name, model.version, model.sha256)
    return Observer(uid, name, f"{model.name} {model.version}".strip(), model.sha256 or "unknown")


def check_slices(pairs: list[tuple[int | None, str | None]], series: SortedSeries) -> None:
    """Check that slice indices and SOP Instance UIDs belong together.

    Parameters
    ----------
    pairs : list of tuple
        (slice index from 0, SOP Instance UID).
    series : SortedSeries
        The series in which the UID must be at that index.

    Raises
    ------
    EncodingError
        ENCODING if one does not.
    """
    uids = series.sop_instance_uids
    for index, uid in pairs:
        if index is None or not 0 <= index < len(uids) or uids[index] != uid:
            raise EncodingError(Reason.ENCODING, f"slice {index} and its SOP Instance UID are not those of the series")


def _landmark_code(item: Landmark, mapped: dict[str, LandmarkCode]) -> LandmarkCode:
    if item.name not in mapped:
        raise EncodingError(Reason.ENCODING, f"mappings/landmarks.csv has no row {item.name!r}")
    return mapped[item.name]


def _landmark_group(
    item: Landmark, mapped: LandmarkCode, scores: SliceScores, series: SortedSeries, tracking: tuple[str, str]
) -> Dataset:
    """Build the measurement group of a landmark (TID 1501): slice, position in the body, and quality of the match.

    `tracking` is (tracking identifier, tracking UID).
    """
    assert item.slice_index is not None
    source = series.slices[item.slice_index]
    one, millimetre = units()
    score = scores.cleaned[item.slice_index]
    numbers = [
        ("slice_score", score, one),
        ("landmark_score", item.score, one),
        ("landmark_distance", item.distance, millimetre),
        ("landmark_confidence", item.confidence, one),
    ]
    items = [
        *tracking_items(*tracking),
        finding_site(mapped.site, topography=mapped.modifier),
        *algorithm_items(bodypart_algorithm(scores)),
        image(CONTAINS, as_code(codes.DCM.SourceOfMeasurement), source.sop_class_uid, source.sop_instance_uid),
        *(measurement(concept(name), value, unit) for name, value, unit in numbers if value is not None),
    ]
    return container(CONTAINS, codes.DCM.MeasurementGroup, items, "1501")

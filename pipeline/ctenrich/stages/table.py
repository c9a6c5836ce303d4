"""The table of the stages: what each needs, what makes it run again, and what it does to one series or product."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from ctenrich.records import (
    EncodedObject,
    EncodedObjects,
    FetchedSeries,
    Issue,
    Landmarks,
    ProductKind,
    Proof,
    Regions,
    SegmentMasks,
    Severity,
    ShapeMeasurements,
    SliceScores,
    SortedSeries,
    Volume,
)
from ctenrich.stages.stage import Stage, StageFindingsError, Task
from ctenrich.workspace import load_record, save_record, sha256_of_file

if TYPE_CHECKING:
    from ctenrich.settings import Settings

__all__ = ["PRODUCT_STAGES", "SERIES_STAGES", "STAGES", "prove_objects", "series_output"]


# ---------------------------------------------------------------- what a stage depends on


def _digest(path: Path) -> str:
    """Hash of a record without its timings; refuses if the stage before has not run."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        hint = "run the stages before it first"
        raise InputError(Reason.NOT_PREPARED, f"{path.name} has not been made yet", hint) from None
    data.pop("timings", None)
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _settings(task: Task, section: str, *names: str) -> str:
    values = asdict(getattr(task.settings, section))
    return json.dumps({n: values[n] for n in names} if names else values, sort_keys=True)


def _mappings() -> str:
    from ctenrich.codes.mappings import mappings_sha256

    return mappings_sha256()


def _of_product(task: Task, *names: str) -> list[str]:
    return [_digest(task.room / f"{name}.json") for name in names]


# ---------------------------------------------------------------- series stages


def _fetch(task: Task) -> tuple[list[Path], tuple[Issue, ...]]:
    from ctenrich.stages.fetch import fetch_series

    fetched = fetch_series(task.entry, **task.common)
    files = [task.workspace.resolve(task.uid, f.path) for f in (*fetched.files, *fetched.companions)]
    inside = [f for f in files if f.is_relative_to(task.room)]
    return [task.room / "fetched.json", *inside], ()


def _sort(task: Task) -> tuple[list[Path], tuple[Issue, ...]]:
    from ctenrich.stages.sort import sort_series

    series = sort_series(load_record(task.room / "fetched.json", FetchedSeries), **task.common)
    return [task.room / "sorted.json"], series.issues


def _convert(task: Task) -> tuple[list[Path], tuple[Issue, ...]]:
    from ctenrich.stages.convert import convert_series

    volume = convert_series(load_record(task.room / "sorted.json", SortedSeries), **task.common)
    later = bool(series_output(task.settings))
    files = [volume.array_path, *([volume.nifti_path] if volume.nifti_path and not later else [])]
    return [task.room / "volume.json", *(task.workspace.resolve(task.uid, f) for f in files)], volume.issues


def _compress(task: Task) -> tuple[list[Path], tuple[Issue, ...]]:
    from ctenrich.stages.convert import compress_nifti

    volume = load_record(task.room / "volume.json", Volume)
    if not (task.room / "volume" / "ct.nii").is_file():
        _convert(task)  # what was made of it is lost: the same volume again, and its NIfTI
    return [compress_nifti(volume, workspace=task.workspace)], ()


# ---------------------------------------------------------------- product stages


def _inputs(task: Task) -> tuple[SortedSeries, Volume]:
    room = task.series_room
    return load_record(room / "sorted.json", SortedSeries), load_record(room / "volume.json", Volume)


def _segment(task: Task) -> tuple[list[Path], tuple[Issue, ...]]:
    assert task.plan is not None
    series, volume = _inputs(task)
    segmenter = task.models.segmenter(task.plan)
    if _is_cropped(task):
        from ctenrich.stages.crop import segment_cropped

        masks = segment_cropped(segmenter, volume, series, **task.common)
    else:
        masks = segmenter.segment({"CT": volume}, series, **task.common)
    save_record(task.room / "masks.json", masks)
    paths = [masks.label_map_path, *(s.mask_path for s in masks.segments)]
    return [task.room / "masks.json", *(task.workspace.resolve(task.uid, p) for p in paths if p)], masks.issues


def _is_cropped(task: Task) -> bool:
    return bool(task.settings.segment.crop) and task.kind is ProductKind.NNUNET


def _score(task: Task) -> tuple[list[Path], tuple[Issue, ...]]:
    assert task.plan is not None
    series, volume = _inputs(task)
    scores = task.models.scorer(task.plan).score(volume, series, **task.common)
    save_record(task.room / "scores.json", scores)
    return [task.room / "scores.json"], scores.issues


def _measure(task: Task) -> tuple[list[Path], tuple[Issue, ...]]:
    if task.kind is ProductKind.BODYPART:
        from ctenrich.bodypart.bpreg_json import write_bodypart_json
        from ctenrich.bodypart.landmarks import find_landmarks
        from ctenrich.bodypart.plausibility import check_bodypart
        from ctenrich.bodypart.regions import find_regions

        scores = load_record(task.room / "scores.json", SliceScores)
        landmarks, regions = find_landmarks(scores, **task.common), find_regions(scores, **task.common)
        save_record(task.room / "landmarks.json", landmarks)
        save_record(task.room / "regions.json", regions)
        write_bodypart_json(task.room / "scores" / "bodypart.json", scores)
        files = [task.room / name for name in ("landmarks.json", "regions.json", "scores/bodypart.json")]
        return files, landmarks.issues + regions.issues + check_bodypart(scores, landmarks, regions)
    from ctenrich.shape.measure import measure_shape

    _, volume = _inputs(task)
    shape = measure_shape(load_record(task.room / "masks.json", SegmentMasks), volume, **task.common)
    save_record(task.room / "shape.json", shape)
    return [task.room / "shape.json"], shape.issues


def _encode(task: Task) -> tuple[list[Path], tuple[Issue, ...]]:
    assert task.plan is not None
    series, volume = _inputs(task)
    encode = _encode_bodypart if task.kind is ProductKind.BODYPART else _encode_segments
    objects = encode(task, series, volume)
    save_record(task.room / "objects.json", EncodedObjects(task.plan.product, task.uid, tuple(objects)))
    files = [task.room / "objects.json", *(task.workspace.resolve(task.uid, o.path) for o in objects)]
    return files, tuple(issue for o in objects for issue in o.issues)


def _encode_segments(task: Task, series: SortedSeries, volume: Volume) -> list[EncodedObject]:
    from ctenrich.encode.seg import encode_seg
    from ctenrich.encode.shape_sr import encode_shape_sr

    masks = load_record(task.room / "masks.json", SegmentMasks)
    shape = load_record(task.room / "shape.json", ShapeMeasurements)
    seg = encode_seg(masks, volume, series, **task.common)
    return [seg, encode_shape_sr(shape, masks, seg, series, **task.common)]


def _encode_bodypart(task: Task, series: SortedSeries, _volume: Volume) -> list[EncodedObject]:
    from ctenrich.encode.landmarks_sr import encode_landmarks_sr
    from ctenrich.encode.regions_sr import encode_regions_sr

    scores = load_record(task.room / "scores.json", SliceScores)
    landmarks = load_record(task.room / "landmarks.json", Landmarks)
    regions = load_record(task.room / "regions.json", Regions)
    return [
        encode_landmarks_sr(landmarks, scores, series, **task.common),
        encode_regions_sr(regions, scores, series, **task.common),
    ]


def _validate(task: Task) -> tuple[list[Path], tuple[Issue, ...]]:
    """Prove, then validate; what is found is kept even where it makes the product fail."""
    from ctenrich.validate import validate_objects

    objects = load_record(task.room / "objects.json", EncodedObjects).objects
    proof = prove_objects(task, objects)
    save_record(task.room / "proof.json", proof)
    paths = [task.workspace.resolve(task.uid, o.path) for o in objects]
    issues = validate_objects(paths, settings=task.settings)
    failed = tuple(
        Issue(f"proof.{c.name}", Severity.ERROR, task.plan.product.kind.value if task.plan else "", c.detail)
        for c in proof.checks
        if not c.passed
    )
    if not proof.passed:
        names = ", ".join(c.name for c in proof.checks if not c.passed) or "no check was made"
        raise StageFindingsError(Reason.PROOF_FAILED, f"not proven: {names}", (*failed, *issues))
    errors = [i for i in issues if i.severity is Severity.ERROR]
    if errors:
        raise StageFindingsError(Reason.INVALID_OBJECT, f"{len(errors)} errors, first: {errors[0].message}", issues)
    return [task.room / "proof.json"], issues


def prove_objects(task: Task, objects: tuple[EncodedObject, ...]) -> Proof:
    """Prove the objects of a product against the records of its stages."""
    from ctenrich.proof import prove_bodypart, prove_segmentation

    series, volume = _inputs(task)
    kwargs: dict[str, Any] = {"settings": task.settings, "workspace": task.workspace}
    if task.kind is ProductKind.BODYPART:
        return prove_bodypart(
            load_record(task.room / "scores.json", SliceScores),
            load_record(task.room / "landmarks.json", Landmarks),
            load_record(task.room / "regions.json", Regions),
            series,
            objects,
            **kwargs,
        )
    masks = load_record(task.room / "masks.json", SegmentMasks)
    shape = load_record(task.room / "shape.json", ShapeMeasurements)
    return prove_segmentation(masks, shape, volume, series, objects, **kwargs)


# ---------------------------------------------------------------- the table


def _segment_identity(task: Task) -> list[str]:
    assert task.plan is not None
    names = ("engine", "precision", "step_size", "probabilities")
    room = task.series_room
    crop: list[str] = []
    if _is_cropped(task):
        from ctenrich.stages.crop import scores_path

        scores = scores_path(room)
        crop = [task.settings.segment.crop, _digest(scores) if scores else ""]
    return [
        task.plan.model_sha256,
        str(task.plan.product),
        _settings(task, "segment", *names),
        _mappings(),
        _digest(room / "sorted.json"),
        _digest(room / "volume.json"),
        *crop,
    ]


def _score_identity(task: Task) -> list[str]:
    assert task.plan is not None
    room = task.series_room
    product = str(task.plan.product)
    return [task.plan.model_sha256, product, _digest(room / "sorted.json"), _digest(room / "volume.json")]


def _measure_identity(task: Task) -> list[str]:
    if task.kind is ProductKind.BODYPART:
        return [*_of_product(task, "scores"), _mappings()]
    chosen = task.settings.measure.radiomics
    radiomics = [sha256_of_file(Path(chosen))] if chosen and Path(chosen).is_file() else []
    return [*_of_product(task, "masks"), _settings(task, "measure", "engine"), chosen and "radiomics", *radiomics]


def _encode_identity(task: Task) -> list[str]:
    bodypart = task.kind is ProductKind.BODYPART
    records = ("scores", "landmarks", "regions") if bodypart else ("masks", "shape")
    series = _digest(task.series_room / "sorted.json")
    return [*_of_product(task, *records), series, _settings(task, "encode"), _mappings()]


STAGES: dict[str, Stage] = {
    s.name: s
    for s in (
        Stage("fetch", 1, "input", lambda t: [repr(t.entry), _settings(t, "fetch", "copy_local")], _fetch),
        Stage("sort", 1, "input", lambda t: [_digest(t.room / "fetched.json"), _settings(t, "geometry")], _sort),
        Stage(
            "convert",
            2,
            "input",
            lambda t: [_digest(t.room / "sorted.json"), _settings(t, "convert", "nifti", "compress_nifti")],
            _convert,
        ),
        Stage("compress", 1, "output", lambda t: [_digest(t.room / "volume.json")], _compress),
        Stage("segment", 1, "infer", _segment_identity, _segment),
        Stage("score", 2, "infer", _score_identity, _score),
        Stage("measure", 2, "output", _measure_identity, _measure),
        Stage("encode", 1, "output", _encode_identity, _encode),
        Stage("validate", 2, "output", lambda t: [*_of_product(t, "objects"), _settings(t, "validate")], _validate),
    )
}

SERIES_STAGES = ("fetch", "sort", "convert")
PRODUCT_STAGES = {
    ProductKind.EXPERT: ("segment", "measure", "encode", "validate"),
    ProductKind.NNUNET: ("segment", "measure", "encode", "validate"),
    ProductKind.BODYPART: ("score", "measure", "encode", "validate"),
}


def series_output(settings: Settings) -> tuple[str, ...]:
    """Stages of a series that nothing waits for; they run beside the inference of the same series."""
    return ("compress",) if settings.convert.nifti and settings.convert.compress_nifti else ()

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
from ctenrich.stages.stage import Stage, StageContext, StageFindingsError
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


def _settings(context: StageContext, section: str, *names: str) -> str:
    values = asdict(getattr(context.settings, section))
    return json.dumps({n: values[n] for n in names} if names else values, sort_keys=True)


def _mappings() -> str:
    from ctenrich.codes.mappings import mappings_sha256

    return mappings_sha256()


def _of_product(context: StageContext, *names: str) -> list[str]:
    return [_digest(context.folder / f"{name}.json") for name in names]


# ---------------------------------------------------------------- series stages


def _fetch(context: StageContext) -> tuple[list[Path], tuple[Issue, ...]]:
    from ctenrich.stages.fetch import fetch_series

    fetched = fetch_series(context.entry, **context.common)
    files = [context.workspace.resolve(context.uid, f.path) for f in (*fetched.files, *fetched.companions)]
    inside = [f for f in files if f.is_relative_to(context.folder)]
    return [context.folder / "fetched.json", *inside], ()


def _sort(context: StageContext) -> tuple[list[Path], tuple[Issue, ...]]:
    from ctenrich.stages.sort import sort_series

    series = sort_series(load_record(context.folder / "fetched.json", FetchedSeries), **context.common)
    return [context.folder / "sorted.json"], series.issues


def _convert(context: StageContext) -> tuple[list[Path], tuple[Issue, ...]]:
    from ctenrich.stages.convert import convert_series

    volume = convert_series(load_record(context.folder / "sorted.json", SortedSeries), **context.common)
    later = bool(series_output(context.settings))
    files = [volume.array_path, *([volume.nifti_path] if volume.nifti_path and not later else [])]
    return [context.folder / "volume.json", *(context.workspace.resolve(context.uid, f) for f in files)], volume.issues


def _compress(context: StageContext) -> tuple[list[Path], tuple[Issue, ...]]:
    from ctenrich.stages.convert import compress_nifti

    volume = load_record(context.folder / "volume.json", Volume)
    if not (context.folder / "volume" / "ct.nii").is_file():
        _convert(context)  # what was made of it is lost: the same volume again, and its NIfTI
    return [compress_nifti(volume, workspace=context.workspace)], ()


# ---------------------------------------------------------------- product stages


def _inputs(context: StageContext) -> tuple[SortedSeries, Volume]:
    folder = context.series_dir
    return load_record(folder / "sorted.json", SortedSeries), load_record(folder / "volume.json", Volume)


def _segment(context: StageContext) -> tuple[list[Path], tuple[Issue, ...]]:
    assert context.plan is not None
    series, volume = _inputs(context)
    segmenter = context.models.segmenter(context.plan)
    if _is_cropped(context):
        from ctenrich.stages.crop import segment_cropped

        masks = segment_cropped(segmenter, volume, series, **context.common)
    else:
        masks = segmenter.segment({"CT": volume}, series, **context.common)
    save_record(context.folder / "masks.json", masks)
    paths = [masks.label_map_path, *(s.mask_path for s in masks.segments)]
    return [
        context.folder / "masks.json",
        *(context.workspace.resolve(context.uid, p) for p in paths if p),
    ], masks.issues


def _is_cropped(context: StageContext) -> bool:
    return bool(context.settings.segment.crop) and context.kind is ProductKind.NNUNET


def _score(context: StageContext) -> tuple[list[Path], tuple[Issue, ...]]:
    assert context.plan is not None
    series, volume = _inputs(context)
    scores = context.models.scorer(context.plan).score(volume, series, **context.common)
    save_record(context.folder / "scores.json", scores)
    return [context.folder / "scores.json"], scores.issues


def _measure(context: StageContext) -> tuple[list[Path], tuple[Issue, ...]]:
    if context.kind is ProductKind.BODYPART:
        from ctenrich.bodypart.bpreg_json import write_bodypart_json
        from ctenrich.bodypart.landmarks import find_landmarks
        from ctenrich.bodypart.plausibility import check_bodypart
        from ctenrich.bodypart.regions import find_regions

        scores = load_record(context.folder / "scores.json", SliceScores)
        landmarks, regions = find_landmarks(scores, **context.common), find_regions(scores, **context.common)
        save_record(context.folder / "landmarks.json", landmarks)
        save_record(context.folder / "regions.json", regions)
        write_bodypart_json(context.folder / "scores" / "bodypart.json", scores)
        files = [context.folder / name for name in ("landmarks.json", "regions.json", "scores/bodypart.json")]
        return files, landmarks.issues + regions.issues + check_bodypart(scores, landmarks, regions)
    from ctenrich.shape.measure import measure_shape

    _, volume = _inputs(context)
    shape = measure_shape(load_record(context.folder / "masks.json", SegmentMasks), volume, **context.common)
    save_record(context.folder / "shape.json", shape)
    return [context.folder / "shape.json"], shape.issues


def _encode(context: StageContext) -> tuple[list[Path], tuple[Issue, ...]]:
    assert context.plan is not None
    series, volume = _inputs(context)
    encode = _encode_bodypart if context.kind is ProductKind.BODYPART else _encode_segments
    objects = encode(context, series, volume)
    save_record(context.folder / "objects.json", EncodedObjects(context.plan.product, context.uid, tuple(objects)))
    files = [context.folder / "objects.json", *(context.workspace.resolve(context.uid, o.path) for o in objects)]
    return files, tuple(issue for o in objects for issue in o.issues)


def _encode_segments(context: StageContext, series: SortedSeries, volume: Volume) -> list[EncodedObject]:
    from ctenrich.encode.seg import encode_seg
    from ctenrich.encode.shape_sr import encode_shape_sr

    masks = load_record(context.folder / "masks.json", SegmentMasks)
    shape = load_record(context.folder / "shape.json", ShapeMeasurements)
    seg = encode_seg(masks, volume, series, **context.common)
    return [seg, encode_shape_sr(shape, masks, seg, series, **context.common)]


def _encode_bodypart(context: StageContext, series: SortedSeries, _volume: Volume) -> list[EncodedObject]:
    from ctenrich.encode.landmarks_sr import encode_landmarks_sr
    from ctenrich.encode.regions_sr import encode_regions_sr

    scores = load_record(context.folder / "scores.json", SliceScores)
    landmarks = load_record(context.folder / "landmarks.json", Landmarks)
    regions = load_record(context.folder / "regions.json", Regions)
    return [
        encode_landmarks_sr(landmarks, scores, series, **context.common),
        encode_regions_sr(regions, scores, series, **context.common),
    ]


def _validate(context: StageContext) -> tuple[list[Path], tuple[Issue, ...]]:
    """Prove, then validate; what is found is kept even where it makes the product fail."""
    from ctenrich.validate import validate_objects

    objects = load_record(context.folder / "objects.json", EncodedObjects).objects
    proof = prove_objects(context, objects)
    save_record(context.folder / "proof.json", proof)
    paths = [context.workspace.resolve(context.uid, o.path) for o in objects]
    issues = validate_objects(paths, settings=context.settings)
    failed = tuple(
        Issue(f"proof.{c.name}", Severity.ERROR, context.plan.product.kind.value if context.plan else "", c.detail)
        for c in proof.checks
        if not c.passed
    )
    if not proof.passed:
        names = ", ".join(c.name for c in proof.checks if not c.passed) or "no check was made"
        raise StageFindingsError(Reason.PROOF_FAILED, f"not proven: {names}", (*failed, *issues))
    errors = [i for i in issues if i.severity is Severity.ERROR]
    if errors:
        raise StageFindingsError(Reason.INVALID_OBJECT, f"{len(errors)} errors, first: {errors[0].message}", issues)
    return [context.folder / "proof.json"], issues


def prove_objects(context: StageContext, objects: tuple[EncodedObject, ...]) -> Proof:
    """Prove the objects of a product against the records of its stages."""
    from ctenrich.proof import prove_bodypart, prove_segmentation

    series, volume = _inputs(context)
    kwargs: dict[str, Any] = {"settings": context.settings, "workspace": context.workspace}
    if context.kind is ProductKind.BODYPART:
        return prove_bodypart(
            load_record(context.folder / "scores.json", SliceScores),
            load_record(context.folder / "landmarks.json", Landmarks),
            load_record(context.folder / "regions.json", Regions),
            series,
            objects,
            **kwargs,
        )
    masks = load_record(context.folder / "masks.json", SegmentMasks)
    shape = load_record(context.folder / "shape.json", ShapeMeasurements)
    return prove_segmentation(masks, shape, volume, series, objects, **kwargs)


# ---------------------------------------------------------------- the table


def _segment_identity(context: StageContext) -> list[str]:
    assert context.plan is not None
    names = ("engine", "precision", "step_size", "probabilities")
    folder = context.series_dir
    crop: list[str] = []
    if _is_cropped(context):
        from ctenrich.stages.crop import scores_path

        scores = scores_path(folder)
        crop = [context.settings.segment.crop, _digest(scores) if scores else ""]
    return [
        context.plan.model_sha256,
        str(context.plan.product),
        _settings(context, "segment", *names),
        _mappings(),
        _digest(folder / "sorted.json"),
        _digest(folder / "volume.json"),
        *crop,
    ]


def _score_identity(context: StageContext) -> list[str]:
    assert context.plan is not None
    folder = context.series_dir
    product = str(context.plan.product)
    return [context.plan.model_sha256, product, _digest(folder / "sorted.json"), _digest(folder / "volume.json")]


def _measure_identity(context: StageContext) -> list[str]:
    if context.kind is ProductKind.BODYPART:
        return [*_of_product(context, "scores"), _mappings()]
    chosen = context.settings.measure.radiomics
    radiomics = [sha256_of_file(Path(chosen))] if chosen and Path(chosen).is_file() else []
    return [*_of_product(context, "masks"), _settings(context, "measure", "engine"), chosen and "radiomics", *radiomics]


def _encode_identity(context: StageContext) -> list[str]:
    bodypart = context.kind is ProductKind.BODYPART
    records = ("scores", "landmarks", "regions") if bodypart else ("masks", "shape")
    series = _digest(context.series_dir / "sorted.json")
    return [*_of_product(context, *records), series, _settings(context, "encode"), _mappings()]


STAGES: dict[str, Stage] = {
    s.name: s
    for s in (
        Stage("fetch", 1, "input", lambda t: [repr(t.entry), _settings(t, "fetch", "copy_local")], _fetch),
        Stage("sort", 1, "input", lambda t: [_digest(t.folder / "fetched.json"), _settings(t, "geometry")], _sort),
        Stage(
            "convert",
            2,
            "input",
            lambda t: [_digest(t.folder / "sorted.json"), _settings(t, "convert", "nifti", "compress_nifti")],
            _convert,
        ),
        Stage("compress", 1, "output", lambda t: [_digest(t.folder / "volume.json")], _compress),
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

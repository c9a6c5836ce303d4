"""The stage table: dependencies, cache key inputs and work of every stage.

A stage loads its input records, calls one function of another subpackage, and saves the records that it returns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from ctenrich.bodypart.bpreg_json import write_bodypart_json
from ctenrich.bodypart.landmarks import find_landmarks
from ctenrich.bodypart.plausibility import check_bodypart
from ctenrich.bodypart.regions import find_regions
from ctenrich.codes.mappings import CODES_REVISION, codes_sha256, newer_codes
from ctenrich.encode.memory import check_label_map
from ctenrich.errors import UsageError
from ctenrich.inference.kinds import SegmenterKind
from ctenrich.objects.kinds import EncodeContext, ObjectDefinition, object_kind
from ctenrich.proof import BodypartResult, SegmentationResult, prove
from ctenrich.reasons import Reason
from ctenrich.records import (
    EncodedObject,
    EncodedObjects,
    FetchedSeries,
    Issue,
    Landmarks,
    ObjectKind,
    Proof,
    Regions,
    SegmentMasks,
    Severity,
    ShapeMeasurements,
    SliceScores,
    SortedSeries,
    StatedMeasurements,
    StructureRois,
    Volume,
)
from ctenrich.shape.measure import measure_shape
from ctenrich.stages.convert import compress_nifti, convert_series
from ctenrich.stages.crop import segment_cropped
from ctenrich.stages.dose import measure_series_doses, treatment_identity
from ctenrich.stages.features import measure_series_features
from ctenrich.stages.fetch import fetch_series
from ctenrich.stages.order import STAGE_POOLS, series_output, with_doses, with_features
from ctenrich.stages.sort import sort_series
from ctenrich.stages.stage import Stage, StageContext, StageFindingsError, StageResult
from ctenrich.stages.treatment import decided_segments
from ctenrich.validate import validate_objects
from ctenrich.workspace import sha256_of_file

if TYPE_CHECKING:
    from ctenrich.inference.segmenter import NamingSegmenter
    from ctenrich.settings import Settings

__all__ = ["STAGES", "check_kind", "objects_left_out", "prove_objects"]


# ---------------------------------------------------------------- series stages


def _run_fetch(context: StageContext) -> StageResult:
    fetched = fetch_series(
        context.entry, settings=context.settings, workspace=context.workspace, progress=context.progress
    )
    record = context.store.save(fetched, context.uid)
    files = [context.resolve(f.path) for f in (*fetched.files, *fetched.companions)]
    return StageResult(files=(record, *(f for f in files if f.is_relative_to(context.folder))))


def _run_sort(context: StageContext) -> StageResult:
    fetched = context.store.fetched(context.uid)
    series = sort_series(fetched, settings=context.settings, workspace=context.workspace, progress=context.progress)
    return StageResult(files=(context.store.save(series, context.uid),), issues=series.issues)


def _run_convert(context: StageContext) -> StageResult:
    series = context.store.sorted_series(context.uid)
    volume = convert_series(series, settings=context.settings, workspace=context.workspace, progress=context.progress)
    record = context.store.save(volume, context.uid)
    files = [context.resolve(volume.array_path)]
    if volume.nifti_path and not series_output(context.settings):
        files.append(context.resolve(volume.nifti_path))
    return StageResult(files=(record, *files), issues=volume.issues)


def _run_compress(context: StageContext) -> StageResult:
    volume = context.store.volume(context.uid)
    if not context.store.volume_nifti(context.uid).is_file():
        _run_convert(context)  # the uncompressed file is missing: convert again
    return StageResult(files=(compress_nifti(volume, workspace=context.workspace),))


# ---------------------------------------------------------------- product stages


def _run_segment(context: StageContext) -> StageResult:
    assert context.requested is not None
    records = context.records
    if ObjectKind.SEG in context.kind.objects:
        check_label_map(records.volume.shape, context.settings)
    segmenter = context.models.segmenter(context.requested)
    if context.kind.takes_decided_names and (names := decided_segments(context)):
        segmenter = cast("NamingSegmenter", segmenter).with_names(names)
    if _is_cropped(context):
        masks = segment_cropped(
            segmenter,
            records.volume,
            records.series,
            _scores_for_crop(context),
            context=context,
        )
    else:
        masks = segmenter.segment(
            {"CT": records.volume},
            records.series,
            settings=context.settings,
            workspace=context.workspace,
            progress=context.progress,
        )
    if not context.kind.states_algorithm_type:
        masks = replace(masks, algorithm_type=context.kind.algorithm_type)
    record = context.store.save(masks, context.uid, context.product)
    paths = [masks.label_map_path, *(s.mask_path for s in masks.segments)]
    files = [record, *(context.resolve(p) for p in paths if p)]
    more = [context.store.path(record, context.uid, context.product) for record in (StructureRois, StatedMeasurements)]
    files += [path for path in more if path.is_file()]  # segmenters of others' files save them, also if they then fail
    return StageResult(files=tuple(files), issues=masks.issues)


def _is_cropped(context: StageContext) -> bool:
    return bool(context.settings.segment.crop) and context.kind.takes_crop


def _scores_for_crop(context: StageContext) -> SliceScores | None:
    """Load the slice scores of the run's body part model; None if the series has none."""
    return context.store.find(SliceScores, context.uid, context.scorer) if context.scorer else None


def _run_score(context: StageContext) -> StageResult:
    assert context.requested is not None
    records = context.records
    scores = context.models.scorer(context.requested).score(
        records.volume,
        records.series,
        settings=context.settings,
        workspace=context.workspace,
        progress=context.progress,
    )
    return StageResult(files=(context.store.save(scores, context.uid, context.product),), issues=scores.issues)


def _run_measure(context: StageContext) -> StageResult:
    return _measure_scores(context) if context.kind.makes is SliceScores else _measure_masks(context)


def _measure_scores(context: StageContext) -> StageResult:
    uid, product, store = context.uid, context.product, context.store
    scores = store.scores(uid, product)
    landmarks, regions = find_landmarks(scores), find_regions(scores)
    document = store.bpreg_json(uid, product)
    write_bodypart_json(document, scores)
    files = (store.save(landmarks, uid, product), store.save(regions, uid, product), document)
    issues = landmarks.issues + regions.issues + check_bodypart(scores, landmarks, regions)
    return StageResult(files=files, issues=issues)


def _measure_masks(context: StageContext) -> StageResult:
    records = context.records
    shape = measure_shape(
        records.masks,
        records.volume,
        settings=context.settings,
        workspace=context.workspace,
        progress=context.progress,
    )
    return StageResult(files=(context.store.save(shape, context.uid, context.product),), issues=shape.issues)


def _run_dose(context: StageContext) -> StageResult:
    doses = measure_series_doses(context)
    return StageResult(files=(context.store.save(doses, context.uid, context.product),))


def _run_features(context: StageContext) -> StageResult:
    found = measure_series_features(context)
    arrays = [context.resolve(one.array_path) for one in found.models]
    return StageResult(files=(context.store.save(found, context.uid, context.product), *arrays), issues=found.issues)


def _run_encode(context: StageContext) -> StageResult:
    written: dict[str, EncodedObject] = {}
    records = context.records
    empty = objects_left_out(context)
    chosen = _object_kinds(context.kind, context.settings)
    for key in {*empty, *(key for key in _OPTIONAL_OBJECTS if key not in {kind.key for kind in chosen})}:
        # that of an earlier call may be there
        context.store.object_file(context.uid, context.product, key).unlink(missing_ok=True)
        (context.folder / "archive" / f"{key}.dcm").unlink(missing_ok=True)
    for kind in chosen:
        if kind.key in empty:
            continue
        context.progress.start(kind.title)
        encode = EncodeContext(
            records=records, written=dict(written), settings=context.settings, workspace=context.workspace
        )
        written[kind.key] = kind.encode(encode)
        context.progress.finish(kind.title)
    objects = tuple(written.values())
    record = context.store.save(EncodedObjects(context.product, context.uid, objects), context.uid, context.product)
    issues = tuple(issue for o in objects for issue in o.issues)
    return StageResult(files=(record, *(context.resolve(o.path) for o in objects)), issues=issues)


def objects_left_out(context: StageContext) -> dict[str, Reason]:
    """Return the object kinds of a product for which its records have no content: kind -> why.

    Raises
    ------
    InputError
        NOT_PREPARED if a record is missing.
    """
    records = context.records
    chosen = _object_kinds(context.kind, context.settings)
    found = {kind.key: kind.why_empty(records) for kind in chosen if kind.why_empty is not None}
    return {key: reason for key, reason in found.items() if reason is not None}


def _run_validate(context: StageContext) -> StageResult:
    """Prove, then validate; findings are kept even if they make the product fail."""
    objects = context.store.objects(context.uid, context.product).objects
    proof = prove_objects(context, objects)
    record = context.store.save(proof, context.uid, context.product)
    issues = validate_objects([context.resolve(o.path) for o in objects], settings=context.settings)
    about = str(context.product.kind)
    if not proof.passed:
        failed = tuple(Issue(f"proof.{c.name}", Severity.ERROR, about, c.detail) for c in proof.checks if not c.passed)
        names = ", ".join(c.name for c in proof.checks if not c.passed) or "no check was made"
        raise StageFindingsError(Reason.PROOF_FAILED, f"not proven: {names}", (*failed, *issues))
    errors = [i for i in issues if i.severity is Severity.ERROR]
    if errors:
        raise StageFindingsError(Reason.INVALID_OBJECT, f"{len(errors)} errors, first: {errors[0].message}", issues)
    text = "objects of this kind have no proof: nothing was compared with the result"
    unproven = tuple(Issue(f"proof.{kind}.missing", Severity.WARNING, about, text) for kind in proof.not_proven)
    return StageResult(files=(record,), issues=(*unproven, *issues))


def prove_objects(context: StageContext, objects: tuple[EncodedObject, ...]) -> Proof:
    """Prove the objects of a product against the records of its stages.

    Parameters
    ----------
    context : StageContext
        Context of the product.
    objects : tuple of EncodedObject
        Records of the written objects.

    Returns
    -------
    Proof
        All checks, passed or not.

    Raises
    ------
    InputError
        NOT_PREPARED if a record is missing.
    """
    records = context.records
    result: SegmentationResult | BodypartResult
    if context.kind.makes is SliceScores:
        result = BodypartResult(
            scores=records.scores, landmarks=records.landmarks, regions=records.regions, series=records.series
        )
    else:
        result = SegmentationResult(
            masks=records.masks,
            shape=records.shape,
            volume=records.volume,
            series=records.series,
            doses=records.doses if with_doses(context.kind, context.settings) else None,
        )
    left_out = tuple(objects_left_out(context))
    chosen = _object_kinds(context.kind, context.settings)
    provers = {kind.key: kind.prove for kind in chosen if kind.key not in left_out}
    return prove(result, objects, provers, left_out=left_out, settings=context.settings, workspace=context.workspace)


_OPTIONAL_OBJECTS = (ObjectKind.DOSE_SR, ObjectKind.FEATURES_SR)
"""Objects that a product has only by the settings of the run."""


def _object_kinds(kind: SegmenterKind, settings: Settings) -> list[ObjectDefinition]:
    more = [ObjectKind.DOSE_SR] if with_doses(kind, settings) else []
    more += [ObjectKind.FEATURES_SR] if with_features(kind, settings) else []
    return [object_kind(key) for key in (*kind.objects, *more)]


# ---------------------------------------------------------------- cache key inputs


def _settings_json(context: StageContext, section: str, *names: str) -> str:
    values = asdict(getattr(context.settings, section))
    return json.dumps({n: values[n] for n in names} if names else values, sort_keys=True)


def _series_digest(context: StageContext, record: type) -> str:
    return context.store.digest(record, context.uid)


def _product_digest(context: StageContext, record: type) -> str:
    return context.store.digest(record, context.uid, context.product)


def _fetch_inputs(context: StageContext) -> list[str]:
    notes = [repr(context.entry.notes)] if context.entry.notes else []
    return [repr(context.entry), *notes, _settings_json(context, "fetch", "copy_local")]


def _sort_inputs(context: StageContext) -> list[str]:
    return [_series_digest(context, FetchedSeries), _settings_json(context, "geometry")]


def _convert_inputs(context: StageContext) -> list[str]:
    return [
        _series_digest(context, SortedSeries),
        _settings_json(context, "convert", "nifti", "compress_nifti"),
        *_not_hu_input(context),
    ]


def _not_hu_input(context: StageContext) -> list[str]:
    return ["allow_not_hu"] if context.settings.geometry.allow_not_hu else []


def _compress_inputs(context: StageContext) -> list[str]:
    return [_series_digest(context, Volume)]


def _segment_inputs(context: StageContext) -> list[str]:
    assert context.requested is not None
    crop: list[str] = []
    if _is_cropped(context):
        scorer = context.scorer
        scored = scorer is not None and context.store.has(SliceScores, context.uid, scorer)
        digest = context.store.digest(SliceScores, context.uid, scorer) if scored else ""
        crop = [context.settings.segment.crop, digest]
    return [
        context.requested.model_sha256,
        str(context.product),
        _settings_json(context, "segment", "engine", "precision", "step_size", "probabilities"),
        codes_sha256(),
        _series_digest(context, SortedSeries),
        _series_digest(context, Volume),
        *crop,
        *(context.kind.cache_key(context.settings) if context.kind.cache_key else ()),
        *_decided_names_input(context),
    ]


def _decided_names_input(context: StageContext) -> list[str]:
    """Names that people decided on, where the kind takes them and there are any."""
    names = decided_segments(context) if context.kind.takes_decided_names else {}
    return [json.dumps(names, sort_keys=True)] if names else []


def _score_inputs(context: StageContext) -> list[str]:
    assert context.requested is not None
    records = [_series_digest(context, SortedSeries), _series_digest(context, Volume)]
    return [context.requested.model_sha256, str(context.product), *records]


_TEXTURE_CODES = "textures with IBSI codes, discretisation stated"
"""Measurements with pyradiomics' parameter file before this are made again."""


def _measure_inputs(context: StageContext) -> list[str]:
    if context.kind.makes is SliceScores:
        return [_product_digest(context, SliceScores), CODES_REVISION]
    chosen = context.settings.measure.radiomics
    radiomics = [sha256_of_file(Path(chosen)), _TEXTURE_CODES] if chosen and Path(chosen).is_file() else []
    engine = _settings_json(context, "measure", "engine")
    return [_product_digest(context, SegmentMasks), engine, chosen and "radiomics", *radiomics]


def _dose_inputs(context: StageContext) -> list[str]:
    records = [_series_digest(context, record) for record in (FetchedSeries, SortedSeries)]
    masks = _product_digest(context, SegmentMasks)
    return [*records, masks, _settings_json(context, "doses"), treatment_identity(context)]


def _features_inputs(context: StageContext) -> list[str]:
    volume, masks = _series_digest(context, Volume), _product_digest(context, SegmentMasks)
    return [volume, masks, _settings_json(context, "features")]


def _encode_inputs(context: StageContext) -> list[str]:
    reads = dict.fromkeys(r for kind in _object_kinds(context.kind, context.settings) for r in kind.reads)
    return [
        *(_product_digest(context, record) for record in reads if record is not StatedMeasurements),
        *_stated_input(context),
        _series_digest(context, SortedSeries),
        _settings_json(context, "encode"),
        CODES_REVISION,
        *_newer_codes(context),
        *(f"left out: {key}" for key in objects_left_out(context)),
    ]


def _stated_input(context: StageContext) -> list[str]:
    """Digest of measurements that another program stated, where there are such."""
    stated = context.store.has(StatedMeasurements, context.uid, context.product)
    return [_product_digest(context, StatedMeasurements)] if stated else []


def _newer_codes(context: StageContext) -> tuple[str, ...]:
    """Codes of the product's structures that are newer than the first revision; a record that is damaged has none."""
    if context.kind.makes is not SegmentMasks:
        return ()
    masks = context.store.find_valid(SegmentMasks, context.uid, context.product)
    return newer_codes(segment.name for segment in masks.segments) if masks else ()


def _validate_inputs(context: StageContext) -> list[str]:
    return [_product_digest(context, EncodedObjects), _settings_json(context, "validate")]


# ---------------------------------------------------------------- the table


_ROWS = (
    ("fetch", 1, _fetch_inputs, _run_fetch),
    ("sort", 2, _sort_inputs, _run_sort),
    ("convert", 3, _convert_inputs, _run_convert),
    ("compress", 1, _compress_inputs, _run_compress),
    ("segment", 1, _segment_inputs, _run_segment),
    ("features", 1, _features_inputs, _run_features),
    ("score", 2, _score_inputs, _run_score),
    ("measure", 2, _measure_inputs, _run_measure),
    ("dose", 1, _dose_inputs, _run_dose),
    ("encode", 2, _encode_inputs, _run_encode),
    ("validate", 2, _validate_inputs, _run_validate),
)
"""Name, version, function of the cache key's inputs, and function of the work, of every stage."""

STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        name: Stage(name=name, version=version, pool=STAGE_POOLS[name], cache_key_inputs=inputs, run=run)
        for name, version, inputs, run in _ROWS
    }
)
"""Name -> stage, in the order of execution."""

_WRITES = MappingProxyType(
    {
        "segment": (SegmentMasks, StatedMeasurements),
        "score": (SliceScores,),
        "measure": (ShapeMeasurements, Landmarks, Regions),
        "encode": (EncodedObjects,),
        "validate": (Proof,),
    }
)
"""Product stage -> records that it may save."""


def check_kind(kind: SegmenterKind) -> None:
    """Refuse a kind of segmenter whose products could not be completed, before any work starts.

    Raises
    ------
    UsageError
        BAD_PLUGIN if a stage does not exist, if the stages are not in the order of the table, or if an object kind is
        not registered, incomplete, or made of records that no stage of the product saves.
    """
    order = [name for name in STAGES if name in kind.stages]
    if order != list(kind.stages) or set(kind.stages) - _WRITES.keys():
        known = ", ".join(_WRITES)
        message = f"the segmenter kind {kind.key!r} has the stages {', '.join(kind.stages)}"
        raise UsageError(Reason.BAD_PLUGIN, message, f"stages of products, in this order: {known}")
    made = {record for stage in kind.stages for record in _WRITES[stage]}
    made -= {ShapeMeasurements} if kind.makes is SliceScores else {Landmarks, Regions}
    for definition in map(object_kind, kind.objects):
        missing = [record.__name__ for record in definition.reads if record not in made]
        if missing:
            message = f"objects {definition.key!r} are made of {missing[0]}, which {kind.key!r} does not make"
            raise UsageError(Reason.BAD_PLUGIN, message)

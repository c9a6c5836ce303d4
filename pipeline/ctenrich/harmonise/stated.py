"""Measurements that another program made of the same masks: read, matched with the segments, and compared with them.

Read are TotalSegmentator's statistics and radiomics (JSON), tables of pyradiomics' batch mode (CSV) and dcmqi's
TID 1500 description (JSON). A value goes into the report if its definition is that of a code; others are omitted with a
reason.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctenrich.codes.dcmqi import SR_SCHEMA
from ctenrich.codes.mappings import Code, FeatureCode, find_segment, load_features, plain_name
from ctenrich.errors import InputError
from ctenrich.harmonise.dcmqi import check_schema, code_of
from ctenrich.harmonise.images import image_stem
from ctenrich.harmonise.request import HarmoniseRequest
from ctenrich.reasons import Reason
from ctenrich.records import (
    Issue,
    Segment,
    SegmentMasks,
    Severity,
    StatedGroup,
    StatedMeasurements,
    StatedValue,
    Volume,
)
from ctenrich.workspace import sha256_of_file

__all__ = ["check_stated", "read_stated"]

_EXCESS = 3.0
"""pyradiomics' kurtosis of a normal distribution; IBSI's is 0."""
_PLAIN = ("normalize", "voxelArrayShift", "resegmentRange", "resampledPixelSpacing")
"""Settings of pyradiomics that change what a first order feature means."""
_DIFFERS, _CONTRADICTS, _LEAST = 0.01, 0.25, 1000.0
"""Relative differences of a volume from which there is a note, and from which it is of another mask; the latter only if
it is also more than these mm3 (a mask that was resampled to 3 mm has another volume)."""
_NEVER_ZERO = ("shape_VoxelVolume", "shape_MeshVolume", "original_shape_VoxelVolume", "original_shape_MeshVolume")
_NAME_COLUMNS = ("name", "label_name", "structure", "segment", "roi")


@dataclass(frozen=True)
class _Row:
    """Measurements of one structure, as a file has them."""

    place: str
    """For messages."""
    values: Mapping[str, Any]
    names: tuple[str, ...] = ()
    """What it calls the structure."""
    number: int | None = None
    """Label value or segment number; None if it states none."""
    reliable: bool = True
    """Whether first order features have the meaning of their codes."""
    extra: tuple[StatedValue, ...] = field(default=())
    """Values that carry their own codes."""


def read_stated(request: HarmoniseRequest, masks: SegmentMasks) -> StatedMeasurements | None:
    """Read the measurements of a request.

    Parameters
    ----------
    request : HarmoniseRequest
        Its files of measurements, and the labels of its segments.
    masks : SegmentMasks
        The segments.

    Returns
    -------
    StatedMeasurements or None
        None if the request has no measurements.

    Raises
    ------
    InputError
        BAD_MEASUREMENTS for a file of another form, a value that is no finite number, a structure that is no segment,
        or two groups of one segment; BAD_DESCRIPTION for a dcmqi description of another schema.
    """
    if not request.measurements:
        return None
    values = {s.number: s.value for s in request.segments}
    groups: dict[int, StatedGroup] = {}
    paths = [Path(p) for p in request.measurements]
    for path in paths:
        for row in _rows_of(path):
            segment = _segment_of(row, masks.segments, values)
            group = _group(row, segment)
            before = groups.get(segment.number)
            if before is not None and {v.name for v in before.values} & {v.name for v in group.values}:
                raise InputError(Reason.BAD_MEASUREMENTS, f"{row.place}: {segment.name} is measured twice")
            groups[segment.number] = group if before is None else _joined(before, group)
    if not any(group.values for group in groups.values()):
        raise InputError(Reason.BAD_MEASUREMENTS, "none of the measurements has a code and a value")
    return StatedMeasurements(
        product=masks.product,
        series_instance_uid=masks.series_instance_uid,
        groups=tuple(groups[number] for number in sorted(groups)),
        algorithm_name=request.algorithm_name,
        algorithm_version=request.algorithm_version,
        files={path.name: sha256_of_file(path) for path in paths},
    )


def check_stated(stated: StatedMeasurements, masks: SegmentMasks, volume: Volume) -> list[Issue]:
    """Compare the volumes that are stated with those of the masks.

    Parameters
    ----------
    stated : StatedMeasurements
        The measurements.
    masks : SegmentMasks
        The segments.
    volume : Volume
        Its spacing.

    Returns
    -------
    list of Issue
        Volumes that differ by more than a hundredth, and values that are not in the report.

    Raises
    ------
    InputError
        BAD_MEASUREMENTS if a volume cannot be that of the mask: the measurements are of other masks.
    """
    code = load_features()["VoxelVolume"]
    voxel = math.prod(volume.spacing)
    sizes = {s.number: s.voxels * voxel for s in masks.segments}
    issues = []
    for group in stated.groups:
        size = sizes[group.number]
        for item in group.values:
            if item.quantity[:2] != (code.quantity.value, code.quantity.scheme):
                continue
            apart = abs(item.value - size)
            text = f"{group.name}: {item.name} is {item.value:.6g} mm3, the mask has {size:.6g} mm3"
            if apart > _CONTRADICTS * max(size, item.value) and apart > _LEAST:
                raise InputError(Reason.BAD_MEASUREMENTS, text, "the measurements are of other masks")
            if apart > _DIFFERS * max(size, item.value):
                issues.append(Issue("harmonise.volume", Severity.WARNING, group.name, text))
        for reason in sorted(set(group.omitted.values())):
            names = [name for name, why in group.omitted.items() if why == reason]
            shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if names[6:] else "")
            issues.append(Issue("harmonise.omitted", Severity.NOTE, group.name, f"{shown}: {reason}"))
    return issues


# ---------------------------------------------------------------- files


def _rows_of(path: Path) -> Iterator[_Row]:
    if path.suffix.lower() == ".csv":
        yield from _csv_rows(path)
        return
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise InputError(Reason.BAD_MEASUREMENTS, f"{path.name} is neither JSON nor CSV") from error
    if isinstance(found, dict) and "@schema" in found:
        yield from _tid1500_rows(path.name, found)
        return
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise InputError(Reason.BAD_MEASUREMENTS, f"{path.name} has no object of values for each structure")
    for name, values in found.items():
        yield _Row(f"{path.name}: {name}", values, (name,), reliable="volume" in values or "intensity" in values)


def _csv_rows(path: Path) -> Iterator[_Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(Reason.BAD_MEASUREMENTS, f"{path.name} is not a CSV file in UTF-8") from error
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise InputError(Reason.BAD_MEASUREMENTS, f"{path.name}, line {line}: the number of columns is another")
        lower = {key.strip().lower(): value.strip() for key, value in row.items()}
        names = [lower[key] for key in _NAME_COLUMNS if lower.get(key)]
        names += [image_stem(Path(lower["mask"].replace("\\", "/")).name)] if lower.get("mask") else []
        number = lower.get("label", "")
        if number and not number.isdigit():
            names, number = [*names, number], ""
        meta = {"image", "mask", "label", *_NAME_COLUMNS}
        values = {k: v for k, v in row.items() if k.strip().lower() not in meta and not k.startswith("diagnostics_")}
        reliable = _is_plain(lower.get("diagnostics_configuration_settings", ""))
        place = f"{path.name}, line {line}"
        yield _Row(place, values, tuple(names), int(number) if number else None, reliable)


def _is_plain(settings: str) -> bool:
    """Whether pyradiomics' settings, as its table has them, leave first order features what their codes mean."""
    if not settings:
        return False
    stated = {}
    for name in _PLAIN:
        _, _, rest = settings.partition(f"'{name}':")
        stated[name] = rest.strip().split(",")[0].strip(" }")
    return all(value in ("", "None", "False", "0", "0.0") for value in stated.values())


def _tid1500_rows(name: str, found: Mapping[str, Any]) -> Iterator[_Row]:
    check_schema(found, SR_SCHEMA, name)
    groups = found.get("Measurements")
    if not isinstance(groups, list) or not groups:
        raise InputError(Reason.BAD_MEASUREMENTS, f"{name} has no Measurements")
    for index, group in enumerate(groups, 1):
        place = f"{name}, group {index}"
        try:
            values = tuple(_tid1500_value(item, place) for item in group.get("measurementItems", []))
            number = int(group["ReferencedSegment"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(Reason.BAD_DESCRIPTION, f"{place} is not as the schema requires") from error
        yield _Row(place, {}, (), number, extra=values)


def _tid1500_value(item: Mapping[str, Any], place: str) -> StatedValue:
    quantity, unit = code_of(item["quantity"], place), code_of(item["units"], place)
    derivation = code_of(item["derivationModifier"], place) if "derivationModifier" in item else None
    name = f"{derivation.meaning} {quantity.meaning}" if derivation else quantity.meaning
    return StatedValue(
        name=f"{name} [{unit.value}]",
        quantity=_triple(quantity),
        unit=_triple(unit),
        value=_number(item["value"], f"{place}: {name}"),
        derivation=_triple(derivation) if derivation else None,
    )


def _triple(code: Code) -> tuple[str, str, str]:
    return code.value, code.scheme, code.meaning


# ---------------------------------------------------------------- values


def _segment_of(row: _Row, segments: Sequence[Segment], values: Mapping[int, int]) -> Segment:
    """The segment that a row is about; its names count before its number."""
    for name in row.names:
        known = find_segment(name)
        fitting = [s for s in segments if s.source_label == name]
        fitting = fitting or [s for s in segments if known is not None and plain_name(s.name) == known.name]
        if len(fitting) == 1:
            return fitting[0]
    by_number = [s for s in segments if row.number is not None and (values[s.number] or s.number) == row.number]
    if len(by_number) == 1 and not row.names:
        return by_number[0]
    if len(by_number) == 1 and len({v for v in values.values() if v}) > 1:
        return by_number[0]
    named = ", ".join(row.names) or (f"label {row.number}" if row.number is not None else "no structure")
    raise InputError(Reason.BAD_MEASUREMENTS, f"{row.place}: {named} is none of the segments")


def _group(row: _Row, segment: Segment) -> StatedGroup:
    features = load_features()
    values, omitted = list(row.extra), {}
    for key, raw in row.values.items():
        if raw is None or raw == "":
            omitted[key] = "no value"
            continue
        plain = {"volume": "shape_VoxelVolume", "intensity": "firstorder_Mean"}.get(key, key)
        kind, _, name = plain.removeprefix("original_").partition("_")
        feature = features.get(name)
        if feature is None or feature.feature_class != kind:
            omitted[key] = "it has no code"
            continue
        value = _number(raw, f"{row.place}: {key}")
        unmeasured = value == 0 and not segment.absent and key in ("volume", "intensity", *_NEVER_ZERO)
        if unmeasured and float(row.values.get("volume") or 0) == 0:
            omitted[key] = "0 stands for a structure that was not measured"
            continue
        if kind == "firstorder" and not row.reliable:
            omitted[key] = "the settings of pyradiomics are not stated, or change what it means"
            continue
        values.append(_coded(key, feature, value))
    if any(omitted.get(key, "").startswith("0 stands") for key in ("volume", *_NEVER_ZERO)) or segment.absent:
        omitted |= dict.fromkeys((v.name for v in values), "the structure is absent or was not measured")
        values = []
    return StatedGroup(number=segment.number, name=segment.name, values=tuple(values), omitted=omitted)


def _coded(key: str, feature: FeatureCode, value: float) -> StatedValue:
    if feature.name == "Kurtosis" and value > 0:  # 0 means one grey level in both definitions
        value -= _EXCESS
    return StatedValue(name=key, quantity=_triple(feature.quantity), unit=_triple(feature.unit), value=value)


def _joined(one: StatedGroup, other: StatedGroup) -> StatedGroup:
    return StatedGroup(
        number=one.number, name=one.name, values=one.values + other.values, omitted=one.omitted | other.omitted
    )


def _number(raw: Any, place: str) -> float:
    try:
        value = float(raw)
    except (TypeError, ValueError):
        raise InputError(Reason.BAD_MEASUREMENTS, f"{place} is {str(raw)[:40]!r}, not a number") from None
    if not math.isfinite(value):
        raise InputError(Reason.BAD_MEASUREMENTS, f"{place} is {value}: it is not measured", "remove it from the file")
    return value

"""Axes and step of a model: what its record, its files and its name state, and who states it.

A network has learnt left from right, and front from back, by the order of array axes, and its files need not state
which order that was. The axes are taken from the first of these that states them, and never guessed:

1. the specification (``axes=RAS``),
2. the record of the import (``ctenrich models import PATH --axes RAS``),
3. ``ctenrich.toml`` in the model's folder,
4. the registry,
5. the name of the data set, where it is one of TotalSegmentator's or MOOSE's (``layouts.toml``), or the file
   ``model_version.json`` that MOOSE 3 writes into the folders of its models,
6. the reader of nnU-Net v2 that plans.json or dataset.json names, if it is NibabelIOWithReorient, which turns every
   image to RAS. Its other readers (SimpleITKIO, NibabelIO), and nnU-Net v1, take the axes of whatever files they are
   given.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ctenrich.errors import ModelError
from ctenrich.inference.imported import import_record
from ctenrich.inference.registry import MODEL_TOML, ResolvedModel, models_home
from ctenrich.nnunet.plans import fail
from ctenrich.nnunet.source_folder import read_json
from ctenrich.reasons import Reason

__all__ = [
    "AXES",
    "FILE",
    "REGISTRY",
    "Conventions",
    "axes_before",
    "check_stated_axes",
    "is_moose_release",
    "parse_axes",
    "parse_step",
    "read_model_toml",
    "stated_conventions",
    "toml_labels",
    "unknown_axes",
]

AXES = ("RAS", "LAS", "LPS")
"""Where growing x, y and z of the arrays point that networks are trained on."""

FILE = MODEL_TOML

REGISTRY = "the registry"
"""Source of what the registry states."""

_KEYS = {"axes", "step", "labels", "demonstration"}
_MAX_TOML = 1024**2
_DATASET = re.compile(r"(Dataset|Task)\d{3}_.+")
_MOOSE_RECORD = "model_version.json"
_MOOSE_RELEASE = re.compile(r"https://github\.com/ENHANCE-PET/MOOSE/releases/download/moosez-v\.3\.[^/]+/clin_ct_[^/]+")


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """Axes and step of a model, with the source of each statement."""

    axes: str = ""
    """RAS, LAS or LPS; empty: not stated."""
    step: float | None = None
    """Distance of the tiles as a share of the tile; None: not stated."""
    axes_from: str = ""
    """Who states the axes, for messages."""
    step_from: str = ""


def parse_axes(text: str) -> str:
    """Return the name of axes in capital letters; raise ValueError if it is not one of `AXES`."""
    if text.upper() not in AXES:
        raise ValueError(text)
    return text.upper()


def parse_step(text: str) -> float:
    """Return a step, 0.05 to 1; raise ValueError for anything else."""
    step = float(text)
    if not 0.05 <= step <= 1:
        raise ValueError(text)
    return step


def axes_before(model: ResolvedModel) -> str:
    """Return the axes that version 0.1.0 used for a model, which products without stated axes have."""
    return (model.entry.axes if model.entry is not None else "") or "LPS"


def unknown_axes(model: ResolvedModel) -> ModelError:
    """Return the error for a model whose axes nothing states, with the three choices and how to decide."""
    named = model.entry is not None or model.folder.parent == models_home() / "imported"
    typed = model.name if named else model.folder
    return ModelError(
        Reason.UNKNOWN_AXES,
        f"nothing states the axes of the arrays that {model.name} was trained on: RAS, LAS or LPS; "
        "with the wrong ones left and right are exchanged, without any other sign",
        "add :axes=RAS (nibabel's canonical axes, nnU-Net's NibabelIOWithReorient), :axes=LAS (dcm2niix's files as "
        "they are) or :axes=LPS (DICOM series read by SimpleITK) to the segmenter; if you do not know, "
        f"ctenrich models check {typed} --axes --on RUN compares all three with an expert's contours; "
        f"ctenrich models import {typed} --axes RAS records the answer",
    )


def check_stated_axes(model: ResolvedModel) -> None:
    """Raise UNKNOWN_AXES if a model's files are there and nothing states its axes; nothing is converted or opened.

    Raises
    ------
    ModelError
        UNKNOWN_AXES; BAD_MODEL if a file that states axes cannot be read.
    """
    files = any(True for name in ("plans.json", "plans.pkl") for _ in model.folder.rglob(name))
    if files and not stated_conventions(model).axes:
        raise unknown_axes(model)


def stated_conventions(model: ResolvedModel, *names: str) -> Conventions:
    """Find what is stated about a model, from the most to the least specific source.

    Parameters
    ----------
    model : ResolvedModel
        Its folder's small files are read; weights are not.
    *names : str
        Further names under which the model was published, e.g. that of its zip file.

    Returns
    -------
    Conventions
        Axes and step are found independently of each other.

    Raises
    ------
    ModelError
        BAD_MODEL if ctenrich.toml, plans.json or dataset.json cannot be read or states what cannot be, or if two files
        of one kind contradict each other; WRONG_MODALITY for a published model of MR.
    """
    axes, axes_from, step, step_from = "", "", None, ""
    for found in _statements(model, names):
        if found.axes and not axes:
            axes, axes_from = found.axes, found.axes_from
        if found.step is not None and step is None:
            step, step_from = found.step, found.step_from
    return Conventions(axes=axes, step=step, axes_from=axes_from, step_from=step_from)


def _statements(model: ResolvedModel, more_names: tuple[str, ...]) -> Iterator[Conventions]:
    """All statements about a model, the most specific first."""
    record = import_record(model.folder)
    imported = _checked_statement(record, "the record of its import")
    yield replace(
        imported,
        axes_from=str(record.get("axes_from", imported.axes_from)),
        step_from=str(record.get("step_from", imported.step_from)),
    )
    places = _places(model.folder)
    own = [read_model_toml(place) for place in places]
    yield _one_statement([_checked_statement(values, FILE) for values in own if values], FILE)
    if model.entry is not None:
        yield _named_statement(model.entry.axes, model.entry.step, REGISTRY)
    names = [
        *(place.name for place in places),
        model.name,
        *more_names,
        str(record.get("file", "")).removesuffix(".zip"),
    ]
    files = _plan_files(places)
    names += [str(plans.get("dataset_name", "")) for plans, _ in files]
    yield _layout_statement(model.name, names)
    yield from (_moose_statement(place) for place in places)
    readers = {str(d.get("overwrite_image_reader_writer") or p.get("image_reader_writer") or "") for p, d in files}
    if readers == {"NibabelIOWithReorient"}:
        yield _named_statement("RAS", None, "the reader of its plans, NibabelIOWithReorient")


def _named_statement(axes: str, step: float | None, source: str) -> Conventions:
    return Conventions(
        axes=axes, step=step, axes_from=source if axes else "", step_from=source if step is not None else ""
    )


def _checked_statement(values: Mapping[str, Any], source: str) -> Conventions:
    axes, step = values.get("axes"), values.get("step")
    try:
        return _named_statement(
            parse_axes(str(axes)) if axes is not None else "",
            parse_step(str(step)) if step is not None else None,
            source,
        )
    except ValueError:
        stated = ", ".join(f"{key} {str(values[key])[:40]!r}" for key in ("axes", "step") if key in values)
        return fail(f"{source} states {stated}", f"axes: {', '.join(AXES)}; step: 0.05 to 1")


def _one_statement(found: list[Conventions], source: str) -> Conventions:
    """Merge the statements of several files of one kind, which must agree."""
    axes, steps = {c.axes for c in found if c.axes}, {c.step for c in found if c.step is not None}
    if len(axes) > 1 or len(steps) > 1:
        fail(f"the files {source} of the model's folders contradict each other", "keep one of them")
    return _named_statement("".join(axes), next(iter(steps), None), source)


def _places(folder: Path) -> list[Path]:
    """Folders that may state something: those of the configurations, up to the model's, and that of its data set."""
    plans = sorted({p.parent for name in ("plans.json", "plans.pkl") for p in folder.rglob(name)})
    found = dict.fromkeys([folder])
    for place in plans:
        found |= dict.fromkeys(p for p in (place, *place.parents) if p.is_relative_to(folder))
    above = [folder.parent] if _DATASET.fullmatch(folder.parent.name) else []
    return [*found, *above]


def _plan_files(places: list[Path]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """plans.json and dataset.json of each configuration of an nnU-Net v2 model."""
    return [
        (read_json(p / "plans.json"), read_json(p / "dataset.json") if (p / "dataset.json").is_file() else {})
        for p in places
        if (p / "plans.json").is_file()
    ]


def toml_labels(folder: Path) -> dict[str, int]:
    """Label name -> value of a folder's ctenrich.toml, empty if it states none.

    Raises
    ------
    ModelError
        BAD_MODEL if they are not names with whole numbers from 1 on.
    """
    labels = read_model_toml(folder).get("labels", {})
    if not isinstance(labels, dict) or not all(type(v) is int and v > 0 for v in labels.values()):
        fail(f"[labels] of {FILE} are not names with whole numbers from 1 on", "for example: heart = 1")
    return {str(name): value for name, value in labels.items()}


def read_model_toml(folder: Path) -> dict[str, Any]:
    """Read a folder's ctenrich.toml: ``axes``, ``step``, ``demonstration``, ``[labels]``; empty if there is none.

    Raises
    ------
    ModelError
        BAD_MODEL if it is not TOML or has other keys.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _MAX_TOML:
            fail(f"{FILE} is too large")
        values = tomllib.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        fail(f"{FILE} is not TOML: {str(error)[:100]}")
    other = sorted(values.keys() - _KEYS)
    if other:
        fail(f"{FILE} has the key {other[0][:40]!r}", f"known keys: {', '.join(sorted(_KEYS))}")
    return values


@cache
def _layouts() -> tuple[Mapping[str, Any], ...]:
    text = Path(__file__).with_name("layouts.toml").read_text("utf-8")
    return tuple(tomllib.loads(text)["layout"])


def _layout_statement(model: str, names: list[str]) -> Conventions:
    for layout in _layouts():
        for name in names:
            if not any(re.fullmatch(pattern, name) for pattern in layout["names"]):
                continue
            if layout.get("modality", "CT") != "CT":
                raise ModelError(
                    Reason.WRONG_MODALITY,
                    f"{model} ({name}) is a model of {layout['modality']}; only CT alone is supported",
                )
            return _named_statement(layout["axes"], layout.get("step"), f"the name {name} ({layout['owner']})")
    return Conventions()


def _moose_statement(folder: Path) -> Conventions:
    known = _names_moose_release(folder / _MOOSE_RECORD)
    return _named_statement("RAS" if known else "", None, f"{_MOOSE_RECORD} of MOOSE")


def is_moose_release(folder: Path) -> bool:
    """Whether MOOSE 3 downloaded the model in a folder: its record of the download is there and names a release."""
    return any(_names_moose_release(path) for path in folder.rglob(_MOOSE_RECORD))


def _names_moose_release(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        url = str(json.loads(path.read_text("utf-8")).get("url", ""))
    except (OSError, ValueError, AttributeError):
        return False
    return _MOOSE_RELEASE.fullmatch(url) is not None

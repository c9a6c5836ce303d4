"""Collect the contents of one series' page: facts, working picture, agreement, measurements, landmarks and checks."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from markupsafe import Markup

from ctenrich.masks import has_arrays
from ctenrich.records import DoseMeasurements, Landmarks, Product, Proof, Regions, SegmentMasks, Volume
from ctenrich.report.agreement import MOST_DISTANCES, Agreement, agreement_of, reference_of
from ctenrich.report.charts import Bar, bars
from ctenrich.report.data import RunData
from ctenrich.report.dose_picture import dose_picture
from ctenrich.report.doses import dose_part
from ctenrich.report.series_tables import (
    agreement_rows,
    facts_of,
    finding_rows,
    folded_issues,
    folded_proof,
    landmark_table,
    measurement_table,
    patient_of,
    roi_row,
    sensible,
    treatment_notes,
    words,
)
from ctenrich.report.systems import MANY, by_system
from ctenrich.report.working_picture import Pictures, WorkingPicture, working_picture
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace

__all__ = ["Pictures", "SeriesIndex", "page_of"]

Row = dict[str, Any]


@dataclass
class SeriesIndex:
    """The run's rows grouped by series, so that a page does not search all of them."""

    data: RunData
    rows: dict[str, dict[str, list[Row]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = ("outcomes", "issues", "timings", "objects", "landmarks", "segments", "rois", "quality", "evaluation",
                 "dose_metrics", "dvh_curves", "dose_checks")  # fmt: skip
        for name in names:
            by_series: dict[str, list[Row]] = defaultdict(list)
            for row in getattr(self.data, name):
                by_series[row["SeriesInstanceUID"]].append(row)
            self.rows[name] = by_series

    def of(self, name: str, series: str, product: str | None = None) -> list[Row]:
        """Rows of one series.

        Parameters
        ----------
        name : str
            Name of the table.
        series : str
            Series Instance UID.
        product : str, optional
            Key of a product; empty: rows of the series as a whole; None: all rows.

        Returns
        -------
        list of dict
        """
        found = self.rows[name].get(series, [])
        return [r for r in found if product is None or r["product"] == product]


@dataclass(frozen=True, kw_only=True)
class _ProductRecords:
    """The records of one product that its part of the page shows; None where one is missing or damaged."""

    masks: SegmentMasks | None = None
    proof: Proof | None = None
    landmarks: Landmarks | None = None
    regions: Regions | None = None
    doses: DoseMeasurements | None = None


def page_of(row: Row, index: SeriesIndex, pictures: Pictures, viewer: str) -> Row:
    """Collect everything that the template of a series' page needs.

    Parameters
    ----------
    row : dict
        The series' row of the table ``series``.
    index : SeriesIndex
        The other rows of the run.
    pictures : Pictures
        Keeps the files of the pictures.
    viewer : str
        Address of the series in a viewer.

    Returns
    -------
    dict
        Values by the names that the template uses.
    """
    data, uid, workspace = index.data, row["SeriesInstanceUID"], pictures.workspace
    store = SeriesStore(workspace)
    products = _product_records(store, index, uid)
    volume = _volume_of(workspace, store.find_valid(Volume, uid))
    masks = _ordered({name: m for name, one in products.items() if (m := one.masks) and has_arrays(m, workspace)})
    own = next(iter(index.of("outcomes", uid, "")), {})
    picture = None
    if volume is not None and (masks or any(one.landmarks or one.regions for one in products.values())):
        anatomy = {n: (p.landmarks, p.regions) for n, p in products.items() if p.landmarks or p.regions}
        picture = working_picture(volume, masks, anatomy, pictures)
        doses = {name: one.doses for name, one in products.items() if one.doses}
        picture = replace(picture, meta=picture.meta | {"dose": dose_picture(uid, volume, doses, pictures)})
    agreement = _agreement(volume, masks, pictures, index.of("evaluation", uid)) if volume is not None else {}
    first, further = facts_of(row)
    positions = _positions(picture)
    return {
        "uid": uid,
        "patient": patient_of(row),
        "description": str(row.get("SeriesDescription") or ""),
        "state": data.state(uid),
        "summary": f"{own.get('reason') or ''} {own.get('message') or ''}".strip(),
        "facts": first,
        "further": further,
        "viewer": viewer,
        "findings": finding_rows(index.of("quality", uid)),
        "picture": _picture_part(picture, agreement),
        "agreement": _agreement_part(masks, agreement),
        "treatment": treatment_notes(index.of("issues", uid)),
        "doses": dose_part(*(index.of(name, uid) for name in ("dose_metrics", "dvh_curves", "dose_checks"))),
        "products": [_product_part(name, records, index, uid, positions) for name, records in products.items()],
        "timings": _timings(index.of("timings", uid)),
    }


def _product_records(store: SeriesStore, index: SeriesIndex, uid: str) -> dict[str, _ProductRecords]:
    """Key of a product -> its records, for every product that the tables name."""
    names = {
        r["product"]
        for name in ("outcomes", "objects", "segments", "rois")
        for r in index.of(name, uid)
        if r["product"]
    }
    saved = {str(product): product for product in store.products(uid)}
    return {name: _records_of(store, uid, saved.get(name)) for name in sorted(names)}


def _records_of(store: SeriesStore, uid: str, product: Product | None) -> _ProductRecords:
    if product is None:
        return _ProductRecords()
    return _ProductRecords(
        masks=store.find_valid(SegmentMasks, uid, product),
        proof=store.find_valid(Proof, uid, product),
        landmarks=store.find_valid(Landmarks, uid, product),
        regions=store.find_valid(Regions, uid, product),
        doses=store.find_valid(DoseMeasurements, uid, product),
    )


def _volume_of(workspace: Workspace, volume: Volume | None) -> Volume | None:
    """The volume, if its array is on the disk."""
    if volume is None or not workspace.resolve(volume.series_instance_uid, volume.array_path).is_file():
        return None
    return volume


def _ordered(masks: Mapping[str, SegmentMasks]) -> dict[str, SegmentMasks]:
    """Products with masks, the reference first."""
    reference = reference_of(masks)
    return {name: masks[name] for name in sorted(masks, key=lambda name: (name != reference, name))}


# ---------------------------------------------------------------- the working picture


def _picture_part(picture: WorkingPicture | None, agreement: Mapping[str, Sequence[Agreement]]) -> Row | None:
    if picture is None:
        return None
    products = picture.meta["products"]
    lines = [
        {"at": (mark["at"] + 0.5) * picture.meta["axes"][picture.meta["stack"]]["spacing"], "name": words(mark["name"])}
        for mark in picture.meta["landmarks"]
    ]
    return {
        "meta": _safe_json(picture.meta),
        "stills": [_still_part(still, picture.meta["stack"], lines) for still in picture.stills],
        "products": [{"letter": _letter(n), "name": one["name"]} for n, one in enumerate(products)],
        "groups": _organ_groups(products, agreement),
        "hu": picture.meta["hu"],
        "dose": picture.meta.get("dose"),
        "landmarks": bool(picture.meta["landmarks"]),
        "regions": list(dict.fromkeys(region["name"] for region in picture.meta["regions"])),
    }


def _letter(number: int) -> str:
    """Short name of a product on the picture: A, B, ... Z, then its number."""
    return chr(ord("A") + number) if number < 26 else str(number + 1)


def _still_part(still: Row, stack: int, lines: list[Row]) -> Row:
    shown = [] if still["fixed"] == stack or stack != 0 else lines
    marks = f", landmarks {', '.join(line['name'] for line in shown[:12])}" if shown else ""
    masks = f" with the masks of {still['product']}" if still["product"] else ""
    return {**still, "lines": shown, "alt": f"{still['name'].capitalize()} CT picture{masks}{marks}"}


def _organ_groups(products: Sequence[Row], agreement: Mapping[str, Sequence[Agreement]]) -> list[Row]:
    """Structures of all products by body system, each with its volume in every product and its Dice coefficients."""
    volumes: dict[str, list[str]] = defaultdict(list)
    colours: dict[str, str] = {}
    absent: dict[str, bool] = {}
    dice = {(a.segment, name): a.dice for name, found in agreement.items() for a in found}
    for number, product in enumerate(products):
        for segment in product["segments"]:
            name, size = segment["name"], segment["ml"]
            text = f"{sensible(size)} mL" if size else "absent"
            score = dice.get((name, product["name"]))
            volumes[name].append(
                (f"{_letter(number)} " if len(products) > 1 else "")
                + text
                + (f", Dice {score:.2f}" if score is not None and size else "")
            )
            colours.setdefault(name, segment["colour"])
            absent[name] = absent.get(name, True) and not size
    groups = by_system(volumes) if len(volumes) > MANY else [("", list(volumes))]
    return [
        {
            "system": system,
            "present": sum(not absent[name] for name in names),
            "rows": [
                {"key": n, "name": words(n), "colour": colours[n], "absent": absent[n], "texts": volumes[n]}
                for n in sorted(names, key=lambda name: absent[name])
            ],
        }
        for system, names in groups
        if names
    ]


def _safe_json(value: Any) -> Markup:
    """JSON that cannot end its script element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(safe)  # noqa: S704 - no character of markup is left


def _positions(picture: WorkingPicture | None) -> dict[int, float]:
    """Slice index -> mm on the patient axis along which the slices were acquired."""
    if picture is None:
        return {}
    axis = picture.meta["axes"][picture.meta["stack"]]
    step = axis["position_step"] / axis["step"]
    return {index: axis["position"] + (index - axis["first"]) * step for index in range(axis["total"])}


# ---------------------------------------------------------------- agreement


def _agreement(
    volume: Volume, masks: Mapping[str, SegmentMasks], pictures: Pictures, evaluated: Sequence[Row]
) -> dict[str, list[Agreement]]:
    """Key of a product -> its agreement with the reference; kept, so that it is computed once for the same masks."""
    reference = reference_of(masks)
    out = {}
    for name, other in masks.items():
        if name == reference:
            continue
        rows = [row for row in evaluated if row["reference"] == reference and row["product"] == name]

        def compared(other: SegmentMasks = other, rows: list[Row] = rows) -> list[Row]:
            found = agreement_of(masks[reference], other, volume.spacing, pictures.workspace, rows)
            return [asdict(one) for one in found]

        shared = len(masks[reference].segments) > MOST_DISTANCES
        known = [(r["segment"], r["dice"]) for r in rows] if shared else []
        parts = ("agreement", masks[reference].sha256, other.sha256, repr(volume.spacing), repr(known))
        key = hashlib.sha256("|".join(parts).encode()).hexdigest()[:24]
        out[name] = [Agreement(**one) for one in pictures.value(f"{key}.json", compared)]
    return out


def _agreement_part(masks: Mapping[str, SegmentMasks], agreement: Mapping[str, Sequence[Agreement]]) -> Row | None:
    rows = agreement_rows(agreement)
    if not rows:
        return None
    complete = all(a.hausdorff_95 is not None or not a.dice for found in agreement.values() for a in found)
    return {
        "reference": reference_of(masks),
        "products": list(agreement),
        "letters": [_letter(list(masks).index(name)) for name in agreement],
        "rows": rows,
        "complete": complete,
    }


# ---------------------------------------------------------------- one product


def _product_part(
    name: str, records: _ProductRecords, index: SeriesIndex, uid: str, positions: Mapping[int, float]
) -> Row:
    outcome = next(iter(index.of("outcomes", uid, name)), {})
    objects = index.of("objects", uid, name)
    return {
        "name": name,
        "state": outcome.get("state") or ("done" if objects else ""),
        "reason": outcome.get("reason", ""),
        "message": outcome.get("message", ""),
        "measurements": measurement_table(index.data.measurements.get(uid, []), name),
        "rois": [roi_row(r) for r in index.of("rois", uid, name)],
        "landmarks": landmark_table(index.of("landmarks", uid, name), positions),
        "proof": folded_proof(records.proof),
        "issues": folded_issues(index.of("issues", uid, name)),
        "objects": [
            {"kind": o["kind"], "uid": o["SOPInstanceUID"], "size": f"{o['size'] / 1e3:,.0f}", "path": o["path"]}
            for o in objects
        ],
    }


def _timings(rows: list[Row]) -> Markup:
    totals: dict[str, float] = defaultdict(float)
    for row in rows:
        totals[f"{row['stage']} {row['product']}".strip()] += row["seconds"]
    ordered = sorted(totals.items(), key=lambda item: -item[1])
    return bars([Bar(name, s, f"{s:.2f} s") for name, s in ordered], "Seconds per stage")

"""Collect the contents of one series' page: facts, pictures, measurements, landmarks, proof and issues."""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ctenrich.codes.mappings import codes_of
from ctenrich.records import Landmarks, Product, Proof, Regions, Segment, SegmentMasks, Volume
from ctenrich.report.charts import Bar, bands, bars
from ctenrich.report.data import RunData
from ctenrich.report.pictures import PLANES, View, choose_view, overlay_png, picture_webp, plane_of
from ctenrich.report.systems import MANY, by_system
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace, write_bytes

__all__ = ["Pictures", "SeriesIndex", "page_of"]

Row = dict[str, Any]
_GREY = (150, 150, 150)


@dataclass
class SeriesIndex:
    """The run's rows grouped by series, so that a page does not search all of them."""

    data: RunData
    rows: dict[str, dict[str, list[Row]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("outcomes", "issues", "timings", "objects", "landmarks", "segments", "rois"):
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


@dataclass(frozen=True)
class Pictures:
    """Draws pictures into files named by a hash of their contents, so that a second report draws only what changed."""

    folder: Path
    prefix: str
    """Path from the page to the folder; empty: pictures are embedded as data URIs."""
    workspace: Workspace

    def picture(self, volume: Volume, view: View, plane: str) -> str:
        """Draw a plane of the CT.

        Parameters
        ----------
        volume : Volume
            The CT.
        view : View
            Its layout.
        plane : str
            One of :data:`ctenrich.report.pictures.PLANES`.

        Returns
        -------
        str
            Address of the picture, relative to the page, or a data URI.
        """
        name = _content_key("picture", volume.sha256, repr(view), plane) + ".webp"
        return self._address(name, lambda: picture_webp(volume, view, plane, self.workspace))

    def overlay(self, masks: SegmentMasks, view: View, plane: str) -> str:
        """Draw the masks of a product on a plane.

        Parameters
        ----------
        masks : SegmentMasks
            The masks.
        view : View
            Layout of the CT.
        plane : str
            One of :data:`ctenrich.report.pictures.PLANES`.

        Returns
        -------
        str
            Address of the picture, relative to the page, or a data URI.
        """
        colours = {s.number: _colour(s.name) for s in masks.segments}
        name = _content_key("overlay", masks.sha256, repr(sorted(colours.items())), repr(view), plane) + ".png"
        return self._address(name, lambda: overlay_png(masks, colours, view, plane, self.workspace))

    def _address(self, name: str, draw: Any) -> str:
        path = self.folder / name
        if not path.is_file():
            write_bytes(path, draw())
        if self.prefix:
            return f"{self.prefix}{name}"
        kind = "webp" if name.endswith("webp") else "png"
        return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _content_key(*parts: str) -> str:
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:24]


def _colour(segment: str) -> tuple[int, int, int]:
    known = codes_of(segment)
    return known.colour if known else _GREY


@dataclass(frozen=True, kw_only=True)
class _ProductRecords:
    """The records of one product that its part of the page shows; None where one is missing or damaged."""

    masks: SegmentMasks | None = None
    proof: Proof | None = None
    landmarks: Landmarks | None = None
    regions: Regions | None = None


def page_of(row: Row, index: SeriesIndex, pictures: Pictures, viewer: str) -> Row:
    """Collect everything that the template of a series' page needs.

    Parameters
    ----------
    row : dict
        The series' row of the table ``series``.
    index : SeriesIndex
        The other rows of the run.
    pictures : Pictures
        Draws the pictures.
    viewer : str
        Address of the series in a viewer.

    Returns
    -------
    dict
        Values by the names that the template uses.
    """
    data, uid, workspace = index.data, row["SeriesInstanceUID"], pictures.workspace
    store = SeriesStore(workspace)
    volume = store.find_valid(Volume, uid)
    products = _product_records(store, index, uid)
    view = _view_of(workspace, volume, [one.masks for one in products.values() if one.masks is not None])
    own = next((o for o in index.of("outcomes", uid, "")), {})
    drawing = _Drawing(volume, view, pictures)
    return {
        "uid": uid,
        "state": data.state(uid),
        "summary": f"{own.get('reason') or ''} {own.get('message') or ''}".strip(),
        "facts": _facts(row),
        "viewer": viewer,
        "products": [_product_part(name, records, index, uid, drawing) for name, records in products.items()],
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
    )


def _view_of(workspace: Workspace, volume: Volume | None, masks: list[SegmentMasks]) -> View | None:
    if volume is None or not workspace.resolve(volume.series_instance_uid, volume.array_path).is_file():
        return None
    return choose_view(volume, masks)


def _facts(row: Row) -> list[tuple[str, str]]:
    spacing = [row.get(n) for n in ("slice_spacing", "pixel_spacing_row", "pixel_spacing_column")]
    facts = [("Collection", row.get("collection_id")), ("Study", row.get("StudyInstanceUID"))]
    if row.get("slices"):
        facts.append(("Volume", f"{row['slices']} slices of {row['rows']} × {row['columns']}"))
        facts.append(("Spacing (slices, rows, columns)", " × ".join(f"{v:.4g}" for v in spacing if v) + " mm"))
    facts.append(("Body part examined (from slice scores)", row.get("body_part_examined")))
    facts += [("Licence", row.get("license_short_name")), ("Source", row.get("source_doi"))]
    return [(name, str(value)) for name, value in facts if value]


@dataclass(frozen=True)
class _Drawing:
    """The volume and its view; None where there is no volume on the disk."""

    volume: Volume | None
    view: View | None
    pictures: Pictures


def _product_part(name: str, records: _ProductRecords, index: SeriesIndex, uid: str, drawing: _Drawing) -> Row:
    outcome = next(iter(index.of("outcomes", uid, name)), {})
    objects = index.of("objects", uid, name)
    organs, measurements = _measurement_table(index.data.measurements.get(uid, []), name)
    planes = _planes(records, drawing)
    found = records.masks.segments if records.masks else ()
    return {
        "name": name,
        "state": outcome.get("state") or ("done" if objects else ""),
        "reason": outcome.get("reason", ""),
        "message": outcome.get("message", ""),
        "planes": planes,
        "caption": _caption(planes),
        "legend": _legend(found),
        "organs": organs,
        "measurements": measurements,
        "rois": [_roi_row(r) for r in index.of("rois", uid, name)],
        "organ_groups": _organ_groups(organs, measurements),
        "landmarks": [_landmark_row(r) for r in index.of("landmarks", uid, name)],
        "checks": records.proof.checks if records.proof else (),
        "issues": index.of("issues", uid, name),
        "objects": [
            {"kind": o["kind"], "uid": o["SOPInstanceUID"], "size": f"{o['size'] / 1e3:,.0f}", "path": o["path"]}
            for o in objects
        ],
    }


def _legend(segments: tuple[Segment, ...]) -> list[Row]:
    """Entries of the legend by body system; one group without a name if they are few."""
    entries = {
        s.name: {"name": _words(s.name), "colour": _hex(_colour(s.name)), "absent": s.absent, "voxels": s.voxels}
        for s in segments
    }
    groups = by_system(entries) if len(entries) > MANY else [("", list(entries))]
    return [{"system": system, "entries": [entries[name] for name in names]} for system, names in groups if names]


def _words(segment: str) -> str:
    return segment.replace("_", " ")


def _organ_groups(organs: list[str], measurements: list[Row]) -> list[Row]:
    """Measurements with a row per organ, by body system; empty if the organs are few enough for columns."""
    if len(organs) <= MANY:
        return []
    column = {organ: number for number, organ in enumerate(organs)}
    return [
        {
            "system": system,
            "rows": [{"organ": _words(n), "numbers": [m["organs"][column[n]] for m in measurements]} for n in names],
        }
        for system, names in by_system(organs)
    ]


def _caption(planes: list[Row]) -> str:
    text = "Soft tissue window (40/400 HU). Patient's left is on the right of the axial and coronal picture; "
    text += "the sagittal picture is seen from the left."
    return text + (" Lines: landmarks. Bands: regions of the body." if any(p["bands"] for p in planes) else "")


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _landmark_row(row: Row) -> Row:
    confidence = row["confidence"]
    return {
        "name": row["landmark"],
        "score": f"{row['score']:.1f}",
        "slice": "" if row["slice_index"] is None else row["slice_index"],
        "confidence": "" if confidence is None else f"{confidence:.2f}",
        "note": row["absent_reason"] or "",
    }


def _roi_row(row: Row) -> Row:
    found = "" if row["images"] is None else f"{row['images_found']} of {row['images']}"
    counts = {name: "" if row[name] is None else row[name] for name in ("contours", "copies", "missing_slices")}
    volumes = [_number(row[f"volume_{rule}"]) for rule in ("holes", "union", "xor")]
    dropped = f"{row['dropped'].replace('_', ' ')}: {row['detail']}" if row["dropped"] else ""
    return {
        "number": "" if row["roi_number"] is None else row["roi_number"],
        "name": row["roi_name"],
        "segment": row["segment"] or "",
        "dropped": dropped,
        "numbers": [*counts.values(), *volumes, found],
    }


def _measurement_table(rows: list[Row], product: str) -> tuple[list[str], list[Row]]:
    mine = [r for r in rows if r["product"] == product]
    organs = sorted({r["segment"] for r in mine})
    values = {(r["quantity"], r["unit"], r["segment"]): r["value"] for r in mine}
    quantities = sorted({(r["quantity"], r["unit"]) for r in mine})
    table = [
        {"quantity": q, "unit": u, "organs": [_number(values.get((q, u, organ))) for organ in organs]}
        for q, u in quantities
    ]
    return organs, table


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _planes(records: _ProductRecords, drawing: _Drawing) -> list[Row]:
    if drawing.volume is None or drawing.view is None:
        return []
    volume, view, pictures = drawing.volume, drawing.view, drawing.pictures
    masks, regions, landmarks = records.masks, records.regions, records.landmarks
    if masks is None and regions is None and landmarks is None:
        return []
    out = []
    for name in PLANES if masks is not None else ("coronal",):
        plane = plane_of(view, name)
        drawn = Markup("")
        if name == "coronal" and view.axes[2] == 0 and (regions or landmarks):
            drawn = bands(plane.width, plane.height, *_marks(landmarks, regions, view, plane.height))
        out.append(
            {
                "width": plane.width,
                "height": plane.height,
                "picture": pictures.picture(volume, view, name),
                "overlay": pictures.overlay(masks, view, name) if masks else "",
                "alt": _alternative(name, view, masks),
                "bands": drawn,
                "bands_width": _bands_width(drawn),
            }
        )
    return out


def _bands_width(drawn: Markup) -> int:
    return int(drawn.split('data-width="')[1].split('"')[0]) if drawn else 0


def _alternative(name: str, view: View, masks: SegmentMasks | None) -> str:
    fixed = {"axial": 2, "coronal": 1, "sagittal": 0}[name]
    seen = [s.name.replace("_", " ") for s in masks.segments if not s.absent] if masks else []
    text = f"{name.capitalize()} CT picture at index {view.cut[fixed]}"
    return f"{text} with {', '.join(seen[:12])}" if seen else text


def _marks(
    landmarks: Landmarks | None, regions: Regions | None, view: View, height: int
) -> tuple[list[tuple[str, float]], list[tuple[str, list[tuple[float, float]]]]]:
    """Landmarks and regions as pixel rows of the coronal picture, superior at the top."""
    n = view.shape[2]

    def edge(index: float) -> float:
        return height * (index if view.flip[2] else n - index) / n

    items = landmarks.items if landmarks else ()
    lines = [(m.name, edge(m.slice_index + 0.5)) for m in items if m.slice_index is not None]
    found: dict[str, list[tuple[float, float]]] = {}
    for name in dict.fromkeys(r for s in (regions.slices if regions else ()) for r in s.regions):
        inside = [s.slice_index for s in (regions.slices if regions else ()) if name in s.regions]
        found[name] = [(min(edge(a), edge(b + 1)), max(edge(a), edge(b + 1))) for a, b in _runs(inside)]
    return sorted(lines, key=lambda x: x[1]), list(found.items())


def _runs(indices: list[int]) -> list[tuple[int, int]]:
    """First and last index of each run of consecutive indices."""
    out: list[tuple[int, int]] = []
    for index in sorted(indices):
        if out and index == out[-1][1] + 1:
            out[-1] = (out[-1][0], index)
        else:
            out.append((index, index))
    return out


def _timings(rows: list[Row]) -> Markup:
    totals: dict[str, float] = defaultdict(float)
    for row in rows:
        totals[f"{row['stage']} {row['product']}".strip()] += row["seconds"]
    ordered = sorted(totals.items(), key=lambda item: -item[1])
    return bars([Bar(name, s, f"{s:.2f} s") for name, s in ordered], "Seconds per stage")

"""Make the tables of a series page: facts, measurements, landmarks, ROIs, findings, and what is folded to one line."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ctenrich.records import Proof
from ctenrich.report.agreement import Agreement
from ctenrich.report.systems import MANY, by_system

__all__ = [
    "agreement_rows",
    "facts_of",
    "finding_rows",
    "folded_issues",
    "folded_proof",
    "landmark_table",
    "measurement_table",
    "patient_of",
    "roi_row",
    "sensible",
    "treatment_notes",
    "words",
]

Row = dict[str, Any]

_SEVERITIES = ("error", "warning", "note")
_UNITS = {
    "mm3": (1e-3, "mL"),
    "mm2": (1e-2, "cm²"),
    "mm": (1.0, "mm"),
    "/mm": (1.0, "mm⁻¹"),
    "1": (1.0, ""),
    "": (1.0, ""),
}
"""Unit of the tables (UCUM) -> factor and unit shown."""
_UNIT_ORDER = ("mL", "cm²", "mm")


def words(segment: str) -> str:
    """Name of a segment, landmark or rule for readers."""
    return segment.replace("_", " ")


def sensible(value: float | None) -> str:
    """Write a number with three significant digits, or all digits before the decimal point; empty for None.

    Examples: 0.0712, 0.712, 7.12, 71.2, 712, 7,123.
    """
    if value is None:
        return ""
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.9995:
        return f"{value:.2f}"
    return f"{value:#.3g}" if value else "0"


# ---------------------------------------------------------------- facts


def patient_of(row: Mapping[str, Any]) -> str:
    """Patient ID, or words for a series that the cohort does not list."""
    return str(row.get("PatientID") or "Patient not known")


def facts_of(row: Mapping[str, Any]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Facts of a series: those that a reader needs at once (beside patient and description), and further ones.

    Parameters
    ----------
    row : mapping
        Row of the table ``series``.

    Returns
    -------
    first, further : list of (name, text)
        Only those that are known.
    """
    age = row.get("age_years")
    years = f"{age:g} years" if age is not None else ""
    sex = {"M": "male", "F": "female", "O": "other"}.get(row.get("PatientSex") or "", row.get("PatientSex") or "")
    scanner = " ".join(str(v) for v in (row.get("Manufacturer"), row.get("ManufacturerModelName")) if v)
    spacing = [row.get(name) for name in ("slice_spacing", "pixel_spacing_row", "pixel_spacing_column")]
    size = f"{row['slices']} slices of {row['rows']} × {row['columns']}" if row.get("slices") else ""
    thickness = row.get("SliceThickness")
    first = [
        ("Study date", row.get("StudyDate")),
        ("Age and sex", ", ".join(v for v in (years, sex) if v)),
        ("Scanner", scanner),
        ("Kernel", row.get("ConvolutionKernel")),
        (
            "Spacing (slices, rows, columns)",
            " × ".join(f"{v:.4g}" for v in spacing if v) + " mm" if any(spacing) else "",
        ),
        ("Volume", size + (f", {thickness:g} mm thick" if size and thickness else "")),
        ("Contrast agent", row.get("ContrastBolusAgent")),
    ]
    further = [
        ("Collection", row.get("collection_id")),
        ("Patient position", row.get("PatientPosition")),
        ("Body part examined (header)", row.get("BodyPartExamined")),
        ("Body part examined (from slice scores)", row.get("body_part_examined")),
        ("Series Instance UID", row.get("SeriesInstanceUID")),
        ("Study Instance UID", row.get("StudyInstanceUID")),
        ("Licence", row.get("license_short_name")),
        ("Source", row.get("source_doi")),
    ]
    return _known(first), _known(further)


def _known(facts: Iterable[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


# ---------------------------------------------------------------- results


def measurement_table(rows: Sequence[Mapping[str, Any]], product: str) -> Row:
    """Measurements of a product with a row per organ, in mL, cm² and mm; volumes first.

    Parameters
    ----------
    rows : sequence of mapping
        Measurements of the series: product, segment, quantity, unit, value.
    product : str
        Key of the product.

    Returns
    -------
    dict
        ``columns`` (quantity, unit) and ``groups`` of rows by body system; one group without a name for a few organs.
    """
    mine = [r for r in rows if r["product"] == product]
    values = {(r["segment"], r["quantity"], r["unit"]): r["value"] for r in mine}
    columns = sorted({(r["quantity"], r["unit"]) for r in mine}, key=_column_order)
    organs = sorted({r["segment"] for r in mine})
    groups = by_system(organs) if len(organs) > MANY else [("", organs)]
    shown = [
        {
            "system": system,
            "rows": [
                {"organ": words(organ), "numbers": [_converted(values.get((organ, q, u)), u) for q, u in columns]}
                for organ in names
            ],
        }
        for system, names in groups
        if names
    ]
    return {"columns": [{"quantity": q, "unit": _unit(u)} for q, u in columns], "groups": shown}


def _unit(unit: str) -> str:
    return _UNITS[unit][1] if unit in _UNITS else unit


def _converted(value: float | None, unit: str) -> str:
    factor = _UNITS[unit][0] if unit in _UNITS else 1.0
    return sensible(None if value is None else value * factor)


def _column_order(column: tuple[str, str]) -> tuple[int, str]:
    unit = _unit(column[1])
    return (_UNIT_ORDER.index(unit) if unit in _UNIT_ORDER else len(_UNIT_ORDER)), column[0]


def agreement_rows(found: Mapping[str, Sequence[Agreement]]) -> list[Row]:
    """Agreement of each product with the reference, a row per structure.

    Parameters
    ----------
    found : mapping
        Key of a product -> its agreement with the reference.

    Returns
    -------
    list of dict
        Structure, volume of the reference, and for each product its numbers or None.
    """
    by_organ: dict[str, dict[str, Agreement]] = defaultdict(dict)
    for product, agreements in found.items():
        for one in agreements:
            by_organ[one.segment][product] = one
    out = []
    for organ, of_product in by_organ.items():
        numbers = [_agreement_numbers(of_product.get(product)) for product in found]
        volume = next(iter(of_product.values())).reference_volume
        out.append({"key": organ, "organ": words(organ), "volume": sensible(volume) or "0", "products": numbers})
    return out


def _agreement_numbers(one: Agreement | None) -> Row | None:
    if one is None:
        return None
    return {
        "dice": "" if one.dice is None else f"{one.dice:.3f}",
        "hausdorff_95": sensible(one.hausdorff_95),
        "mean_distance": sensible(one.mean_distance),
        "difference": _signed(one.volume - one.reference_volume),
    }


def _signed(value: float) -> str:
    text = sensible(abs(value))
    return text if text == "0" else ("+" if value > 0 else "−") + text


def landmark_table(rows: Sequence[Mapping[str, Any]], position: Mapping[int, float]) -> Row:
    """Landmarks of a product, head first; absent ones are summed up by their reason.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of the table ``landmarks``.
    position : mapping
        Slice index -> mm along the patient axis of the slices.

    Returns
    -------
    dict
        ``found`` rows, ``absent`` (reason, names), ``missing`` number of absent ones.
    """
    ordered = sorted(rows, key=lambda row: -row["score"])
    absent: dict[str, list[str]] = defaultdict(list)
    found = []
    for row in ordered:
        index = row["slice_index"]
        if index is None:
            absent[_sentence(row["absent_reason"] or "not on any slice")].append(words(row["landmark"]))
            continue
        confidence = row["confidence"]
        found.append(
            {
                "name": words(row["landmark"]),
                "index": index,
                "slice": index + 1,
                "mm": f"{position[index]:.1f}" if index in position else "",
                "score": f"{row['score']:.1f}",
                "confidence": "" if confidence is None else f"{confidence:.2f}",
            }
        )
    return {"found": found, "absent": list(absent.items()), "missing": sum(map(len, absent.values()))}


def _sentence(reason: str) -> str:
    """Reason for an absent landmark without the code before it, e.g. ``above_range: ``."""
    return re.sub(r"^[a-z_]+: ", "", reason)


def roi_row(row: Mapping[str, Any]) -> Row:
    """Row of an ROI of the structure set."""
    found = "" if row["images"] is None else f"{row['images_found']} of {row['images']}"
    counts = {name: "" if row[name] is None else row[name] for name in ("contours", "copies", "missing_slices")}
    volumes = [sensible(row[f"volume_{rule}"]) for rule in ("holes", "union", "xor")]
    dropped = f"{row['dropped'].replace('_', ' ')}: {row['detail']}" if row["dropped"] else ""
    return {
        "number": "" if row["roi_number"] is None else row["roi_number"],
        "name": row["roi_name"],
        "segment": row["segment"] or "",
        "dropped": dropped,
        "numbers": [*counts.values(), *volumes, found],
    }


# ---------------------------------------------------------------- checks


def finding_rows(rows: Sequence[Mapping[str, Any]]) -> Row:
    """Findings of the quality checks of a series, the gravest first; notes apart.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of the table ``quality``.

    Returns
    -------
    dict
        ``grave`` and ``notes``.
    """
    ordered = sorted(rows, key=lambda row: (-row["weight"], row["product"], row["sentence"]))
    shown = [
        {
            "severity": row["severity"],
            "sentence": row["sentence"],
            "product": row["product"],
            "organ": row["organ"] or "",
            "index": row["slice_index"],
        }
        for row in ordered
    ]
    return {
        "grave": [row for row in shown if row["severity"] != "note"],
        "notes": [row for row in shown if row["severity"] == "note"],
    }


def folded_proof(proof: Proof | None) -> Row | None:
    """Checks of a proof: one line, and the failed ones, which stay open."""
    if proof is None or not proof.checks:
        return None
    failed = [check for check in proof.checks if not check.passed]
    passed = [check for check in proof.checks if check.passed]
    return {"total": len(proof.checks), "failed": failed, "passed": passed}


def treatment_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes of the treatment of a series: links that are not by UID, plans and doses that are not used, decisions.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of the series in the table issues.
    """
    return [str(row["message"]) for row in rows if row["rule"] == "treatment.note"]


def folded_issues(rows: Sequence[Mapping[str, Any]]) -> Row | None:
    """Issues of the validators: errors, which stay open, and the others with a line that counts them."""
    if not rows:
        return None
    counts = {severity: sum(row["severity"] == severity for row in rows) for severity in _SEVERITIES}
    other = [row for row in rows if row["severity"] != "error"]
    parts = [f"{n} {severity}{'' if n == 1 else 's'}" for severity, n in counts.items() if n and severity != "error"]
    return {
        "errors": [row for row in rows if row["severity"] == "error"],
        "others": sorted(
            other, key=lambda row: _SEVERITIES.index(row["severity"]) if row["severity"] in _SEVERITIES else 3
        ),
        "line": " and ".join(parts),
    }

"""Write slice scores as the JSON document that bpreg writes, so that its readers work unchanged.

Same keys and the same order of slices (from feet to head). Two things differ: missing values are ``null`` (bpreg writes
a bare ``NaN``, which is not JSON), and ``sop instance uids`` names the slice of each number.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ctenrich.bodypart.regions import (
    BODY_PARTS_INCLUDED,
    DISTINCT_BODY_PARTS,
    MIN_PRESENT_LANDMARKS,
    examined_tag,
    region_bounds,
    regions_of_score,
)
from ctenrich.codes.mappings import load_regions
from ctenrich.records import SliceScores
from ctenrich.workspace import write_bytes

__all__ = ["bodypart_document", "write_bodypart_json"]


def write_bodypart_json(path: Path, scores: SliceScores) -> None:
    """Write the document of one series.

    Parameters
    ----------
    path : Path
    scores : SliceScores
    """
    text = json.dumps(bodypart_document(scores), indent=1, allow_nan=False)
    write_bytes(path, text.encode() + b"\n")


def bodypart_document(scores: SliceScores) -> dict[str, Any]:
    """Build the document from dictionaries and lists.

    ``z`` is in mm from the slice nearest the feet; ``observed slope`` and ``expected z-spacing`` count towards the
    head; indices of ``body part examined`` point into the arrays of the document (floats, as bpreg writes them).
    """
    order = slice(None) if scores.feet_to_head else slice(None, None, -1)
    cleaned = list(scores.cleaned[order])
    low, high = scores.settings["transform_min"], scores.settings["transform_max"]
    sign = 1 if scores.feet_to_head else -1
    bounds = region_bounds(scores.lookup_table)
    by_slice = [regions_of_score(value, bounds) for value in cleaned]
    return {
        "cleaned slice scores": cleaned,
        "z": [n * scores.z_spacing for n in range(len(cleaned))],
        "unprocessed slice scores": [None if v is None else (v - low) * 100 / (high - low) for v in scores.raw[order]],
        "body part examined": {
            name: [float(n) for n, regions in enumerate(by_slice) if name in regions] for name in bounds
        },
        "body part examined tag": examined_tag(scores),
        "look-up table": {name: {"mean": mean, "std": sd} for name, (mean, sd) in scores.lookup_table.items()},
        "reverse z-ordering": _float_flag(scores.reverse_z_ordering),
        "valid z-spacing": _float_flag(scores.valid_z_spacing),
        "expected slope": scores.expected_slope,
        "observed slope": None if scores.observed_slope is None else sign * scores.observed_slope,
        "slope ratio": scores.slope_ratio,
        "expected z-spacing": scores.expected_z_spacing,
        "z-spacing": scores.z_spacing,
        "settings": _bpreg_settings(scores),
        "sop instance uids": list(scores.sop_instance_uids[order]),
    }


def _bpreg_settings(scores: SliceScores) -> dict[str, Any]:
    regions = load_regions().values()
    return {
        "slice score processing": scores.settings,
        "body part examined dict": {r.name: [r.from_landmark or None, r.to_landmark or None] for r in regions},
        "body part examined tag": {
            "body parts included": {name: list(marks) for name, marks in BODY_PARTS_INCLUDED.items()},
            "distinct body parts": {name: list(ends) for name, ends in DISTINCT_BODY_PARTS.items()},
            "min present landmarks": dict(MIN_PRESENT_LANDMARKS),
        },
    }


def _float_flag(value: bool | None) -> float | None:
    return None if value is None else float(value)

"""Codes of dose metrics: those of CID 10061 where there is one, else private ones made from the name of the metric."""

from __future__ import annotations

import re
from dataclasses import replace

from ctenrich.codes.mappings import Code, FeatureCode, load_dose_metrics
from ctenrich.errors import EncodingError
from ctenrich.reasons import Reason

__all__ = ["COVERAGE", "dose_metric_code"]

COVERAGE = "coverage"
"""Row of the share of a segment inside the dose grid."""
_NUMBER = re.compile(r"(?<=^[DV])\d[\d.e+-]*")
_PLACE = "{x}"
_LONGEST = 16
"""Characters of a Code Value (VR SH)."""


def dose_metric_code(name: str) -> FeatureCode:
    """Quantity and unit of a dose metric.

    Maximum, minimum, mean and median have the codes of CID 10061. D_x and V_x have codes of the scheme 99CTENRICH,
    whose value is the metric's name by TG-263, e.g. ``D95%``, ``V20Gy[%]``.

    Parameters
    ----------
    name : str
        Name of the metric with its unit, e.g. ``D95%[Gy]``.

    Raises
    ------
    EncodingError
        ENCODING where mappings/dose_metrics.csv has no such metric, or the code would be longer than DICOM allows.
    """
    rows = load_dose_metrics()
    if name in rows:
        return rows[name]
    number = _NUMBER.search(name)
    row = rows.get(_NUMBER.sub(_PLACE, name)) if number else None
    if row is None or number is None:
        raise EncodingError(Reason.ENCODING, f"mappings/dose_metrics.csv has no metric {name[:40]!r}")
    value, meaning = (text.replace(_PLACE, number[0]) for text in (row.quantity.value, row.quantity.meaning))
    if len(value) > _LONGEST:
        raise EncodingError(Reason.ENCODING, f"the metric {name[:40]!r} has too many digits for a code")
    return replace(row, name=name, quantity=Code(value, row.quantity.scheme, meaning))

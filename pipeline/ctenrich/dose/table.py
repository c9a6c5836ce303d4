"""Rows of the tables of dose metrics and dose-volume curves, with one meaning for every column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctenrich.dose.structures import StructureDose
from ctenrich.dose.vendor_dvh import VendorDvh

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CURVE_COLUMNS", "METRIC_COLUMNS", "DoseSource", "arrow_table", "curve_rows", "metric_rows"]

METRIC_COLUMNS: dict[str, tuple[str, str]] = {
    "structure_set": ("string", "SOP Instance UID of the structure set or segmentation"),
    "dose": ("string", "SOP Instance UID of the dose"),
    "dose_summation": ("string", "Dose Summation Type: PLAN; BEAM, FRACTION ...: of a part of a plan"),
    "number": ("int64", "ROI Number or Segment Number"),
    "structure": ("string", "ROI Name or segment name"),
    "metric": ("string", "Name of the metric, with the unit of its value: D95%[Gy], D2cc[Gy], V20Gy[%], V20Gy[cc]"),
    "value": ("float64", "Value; NULL with a reason where there is none"),
    "unit": ("string", "Gy, cm3 or %"),
    "lower": ("float64", "Lower bound; NULL where none is known"),
    "upper": ("float64", "Upper bound; NULL where none is known"),
    "reason": ("string", "Reason code where there is no value"),
    "coverage": ("float64", "Share of the structure inside the dose grid"),
    "second_value": ("float64", "Value by the second, independent way; NULL where that does not apply"),
    "second_difference": ("float64", "second_value - value"),
    "vendor_value": (
        "float64",
        "Mean or volume that the DVH in the dose object states, where it agrees with its curve and with the dose",
    ),
    "samples": ("int64", "Sampling points inside the dose grid"),
    "step_slice_mm": ("float64", "Distance of sampling points between slices, mm"),
    "step_row_mm": ("float64", "Distance of sampling points between rows, mm"),
    "step_column_mm": ("float64", "Distance of sampling points between columns, mm"),
}
"""Column -> (Arrow type, meaning)."""

CURVE_COLUMNS: dict[str, tuple[str, str]] = {
    "structure_set": ("string", "SOP Instance UID of the structure set or segmentation"),
    "dose": ("string", "SOP Instance UID of the dose"),
    "number": ("int64", "ROI Number or Segment Number"),
    "structure": ("string", "ROI Name or segment name"),
    "dose_gy": ("float64", "Dose, Gy"),
    "volume_cm3": ("float64", "Volume with at least this dose, cm3"),
    "volume_share": ("float64", "The same as a share of the structure"),
}
"""Column -> (Arrow type, meaning)."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class DoseSource:
    """The objects that rows come from."""

    structure_set: str
    """SOP Instance UID."""
    dose: str
    """SOP Instance UID."""
    summation: str = "PLAN"
    """Dose Summation Type."""
    vendor: tuple[VendorDvh, ...] = ()
    """DVHs of the dose object that agree with the dose."""


def metric_rows(found: Iterable[StructureDose], source: DoseSource) -> Iterator[Row]:
    """Rows of the metrics of structures.

    Parameters
    ----------
    found : iterable of StructureDose
    source : DoseSource

    Yields
    ------
    dict
        By the names of METRIC_COLUMNS.
    """
    vendor = {number: dvh for dvh in source.vendor for number in dvh.roi_numbers}
    for one in found:
        for bounded, second in zip(one.values, one.second, strict=True):
            value = bounded.value
            yield {
                "structure_set": source.structure_set,
                "dose": source.dose,
                "dose_summation": source.summation,
                "number": one.number,
                "structure": one.name,
                "metric": bounded.metric.name,
                "value": value,
                "unit": bounded.metric.unit,
                "lower": bounded.lower,
                "upper": bounded.upper,
                "reason": bounded.reason.value if bounded.reason is not None else None,
                "coverage": None if one.reason is not None else one.coverage,
                "second_value": second,
                "second_difference": second - value if second is not None and value is not None else None,
                "vendor_value": _vendor_value(vendor.get(one.number), bounded.metric.quantity),
                "samples": one.samples,
                "step_slice_mm": one.step[0] if one.samples else None,
                "step_row_mm": one.step[1] if one.samples else None,
                "step_column_mm": one.step[2] if one.samples else None,
            }


def curve_rows(found: Iterable[StructureDose], source: DoseSource) -> Iterator[Row]:
    """Rows of the dose-volume curves of structures.

    Parameters
    ----------
    found : iterable of StructureDose
    source : DoseSource

    Yields
    ------
    dict
        By the names of CURVE_COLUMNS; structures that the dose grid does not cover have no curve.
    """
    for one in found:
        doses, volumes = one.curve
        if one.coverage < 1 or not volumes.size or not volumes[0]:
            continue
        for dose, volume in zip(doses.tolist(), volumes.tolist(), strict=True):
            yield {
                "structure_set": source.structure_set,
                "dose": source.dose,
                "number": one.number,
                "structure": one.name,
                "dose_gy": round(dose, 6),
                "volume_cm3": volume,
                "volume_share": volume / float(volumes[0]),
            }


def _vendor_value(dvh: VendorDvh | None, quantity: str) -> float | None:
    if dvh is None:
        return None
    return {"mean": dvh.mean, "volume": dvh.volume}.get(quantity)


def arrow_table(rows: Iterable[Row], columns: dict[str, tuple[str, str]]) -> pa.Table:
    """Rows as an Arrow table, with the meaning of every column in its metadata.

    Parameters
    ----------
    rows : iterable of dict
    columns : dict
        METRIC_COLUMNS or CURVE_COLUMNS.
    """
    import pyarrow as pa  # only here: commands that write no Parquet start faster

    schema = pa.schema(
        [
            pa.field(name, pa.type_for_alias(kind), metadata={"description": meaning})
            for name, (kind, meaning) in columns.items()
        ]
    )
    return pa.Table.from_pylist(list(rows), schema=schema)

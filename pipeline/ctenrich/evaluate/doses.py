"""Tables of the doses of a run: metrics, curves, findings, and the differences between an expert and the networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.dose.checks import check_cohort
from ctenrich.dose.measure import DoseInput, TreatmentDose, treatment_dose
from ctenrich.errors import InputError
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import (
    DoseCheck,
    DoseMeasurements,
    DoseValue,
    FetchedSeries,
    ProductKind,
    SegmentDoses,
    SortedSeries,
)
from ctenrich.results.parts import TableFiles
from ctenrich.results.schema import arrow_schema
from ctenrich.series_store import SeriesStore
from ctenrich.structure_names.treated_side import find_treated_side, name_columns
from ctenrich.treatments.files import find_treatment
from ctenrich.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DOSE_TABLES", "dose_of_series", "doses_of_series", "find_doses", "has_doses", "write_dose_tables"]

DOSE_TABLES = ("dose_metrics", "dvh_curves", "dose_differences", "dose_checks")
_CHUNK = 64
"""Series of a part; memory does not grow with the cohort."""
_STEP = 0.1
"""Gy between the points of a curve."""

_SAME = 1e-6
"""Relative difference of the maximum of a dose that was read again from that of the record."""

Row = dict[str, Any]


def has_doses(workspace: Workspace) -> bool:
    """Return whether doses were calculated in a run."""
    return next(_all_doses(workspace), None) is not None


def find_doses(workspace: Workspace) -> Iterator[DoseMeasurements]:
    """Load the doses of all products of a run, one by one."""
    for found in _all_doses(workspace):
        yield from found


def doses_of_series(workspace: Workspace, uid: str) -> list[DoseMeasurements]:
    """Load the doses of the products of a series; damaged records are left out.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    uid : str
        Series Instance UID.
    """
    store = SeriesStore(workspace)
    found = (store.find_valid(DoseMeasurements, uid, product) for product in store.products(uid))
    return [doses for doses in found if doses is not None]


def dose_of_series(workspace: Workspace, uid: str) -> TreatmentDose:
    """Read the dose again that the products of a series were measured in.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    uid : str
        Series Instance UID.

    Returns
    -------
    TreatmentDose

    Raises
    ------
    InputError
        NOT_PREPARED where no product has a dose; HASH_MISMATCH where the dose is another one than was measured; and as
        :func:`ctenrich.dose.measure.treatment_dose`.
    """
    known = next((one for one in doses_of_series(workspace, uid) if one.reason is None), None)
    if known is None or known.maximum is None:
        raise InputError(Reason.NOT_PREPARED, "the series has no dose that could be used")
    store = SeriesStore(workspace)
    given = DoseInput(
        series=store.load(SortedSeries, uid),
        fetched=store.load(FetchedSeries, uid),
        treatment=find_treatment(workspace.root / "cohort.parquet", uid),
    )
    found = treatment_dose(given, workspace)
    if found.origins != known.origins or abs(found.dose.grid.maximum - known.maximum) > _SAME * known.maximum:
        raise InputError(Reason.HASH_MISMATCH, "the dose has changed since its metrics were calculated")
    return found


def _all_doses(workspace: Workspace) -> Iterator[list[DoseMeasurements]]:
    for uid in SeriesStore(workspace).series():
        found = doses_of_series(workspace, uid)
        if found:
            yield found


def write_dose_tables(workspace: Workspace, *, progress: Progress = SILENT) -> dict[str, Path]:
    """Write the tables of doses from the records of a run, series by series.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    progress : Progress
        Advanced by every series that has doses.

    Returns
    -------
    dict
        Table name -> file.
    """
    schemas = {name: arrow_schema(name) for name in DOSE_TABLES}
    means: list[Row] = []
    progress.start("dose tables")
    with TableFiles(workspace.tables, schemas) as tables:
        part: list[list[DoseMeasurements]] = []
        for found in _all_doses(workspace):
            part.append(found)
            progress.advance("dose tables")
            if len(part) == _CHUNK:
                means += _write_part(workspace, tables, part)
                part = []
        means += _write_part(workspace, tables, part)
        outliers = [_check_row(uid, check) for uid, check in check_cohort(means)]
        tables.write({"dose_checks": _arrow_table("dose_checks", outliers)})
    progress.finish("dose tables")
    return {name: workspace.tables / f"{name}.parquet" for name in DOSE_TABLES}


def _write_part(workspace: Workspace, tables: TableFiles, part: Sequence[Sequence[DoseMeasurements]]) -> list[Row]:
    """Write the rows of some series; return the mean doses, which are compared over the cohort."""
    rows: dict[str, list[Row]] = {name: [] for name in DOSE_TABLES}
    for products in part:
        own = {
            "dose_metrics": [row for doses in products for row in _metric_rows(doses)],
            "dvh_curves": [row for doses in products for row in _curve_rows(doses)],
            "dose_differences": list(_difference_rows(products)),
        }
        _add_names(workspace, products[0].series_instance_uid, own)
        for name, found in own.items():
            rows[name] += found
        rows["dose_checks"] += _checks_of_series(products)
    tables.write({name: _arrow_table(name, own) for name, own in rows.items()})
    names = ("SeriesInstanceUID", "product", "organ", "metric", "value")
    return [{name: row[name] for name in names} for row in rows["dose_metrics"] if row["metric"] == "Mean[Gy]"]


def _add_names(workspace: Workspace, uid: str, rows: Mapping[str, list[Row]]) -> None:
    """Add standard name, laterality and relative side to the rows of a series."""
    store = SeriesStore(workspace)
    treated = find_treated_side(store, uid, store.products(uid))
    organs = {row["organ"] for found in rows.values() for row in found}
    columns = {organ: name_columns(organ, treated) for organ in organs}
    for found in rows.values():
        for row in found:
            row.update(columns[row["organ"]])


def _arrow_table(name: str, rows: list[Row]) -> pa.Table:
    import pyarrow as pa  # only here: reading records needs no Arrow

    return pa.Table.from_pylist(rows, schema=arrow_schema(name))


def _place(doses: DoseMeasurements, one: SegmentDoses) -> Row:
    return {
        "SeriesInstanceUID": doses.series_instance_uid,
        "product": str(doses.product),
        "segment_number": one.number,
        "organ": one.name,
    }


def _metric_rows(doses: DoseMeasurements) -> Iterator[Row]:
    for one in doses.segments:
        for value in one.values:
            both = value.second is not None and value.value is not None
            relative = doses.prescription and value.unit == "Gy" and value.value is not None
            yield _place(doses, one) | {
                "metric": value.metric,
                "value": value.value,
                "unit": value.unit,
                "lower": value.lower,
                "upper": value.upper,
                "reason": value.reason.value if value.reason is not None else None,
                "relative_percent": 100 * value.value / doses.prescription if relative else None,  # type: ignore[operator]
                "prescription_gy": doses.prescription,
                "prescription_source": doses.prescription_source,
                "coverage": one.coverage,
                "second_value": value.second,
                "second_difference": value.second - value.value if both else None,  # type: ignore[operator]
                "samples": one.samples,
                "step_slice_mm": one.step[0] if one.samples else None,
                "step_row_mm": one.step[1] if one.samples else None,
                "step_column_mm": one.step[2] if one.samples else None,
                "doses": doses.doses,
            }


def _curve_rows(doses: DoseMeasurements) -> Iterator[Row]:
    for one in doses.segments:
        whole = one.curve[0] if one.curve else 0.0
        for n, volume in enumerate(one.curve if whole else ()):
            yield _place(doses, one) | {
                "dose_gy": round(n * _STEP, 6),
                "volume_cm3": volume,
                "volume_share": volume / whole,
            }


_COMPARED: Mapping[str, str] = {"Mean[Gy]": "mean_gy", "D2cc[Gy]": "d2cc_gy", "V20Gy[%]": "v20gy_percent"}
"""Metric -> column of dose_differences."""


def _difference_rows(products: Sequence[DoseMeasurements]) -> Iterator[Row]:
    """Metrics of every organ of a network beside those of the same organ of the expert."""
    experts = [doses for doses in products if doses.product.kind == ProductKind.EXPERT]
    for expert in experts:
        drawn = {one.name: one for one in expert.segments}
        for doses in products:
            if doses.product.kind == ProductKind.EXPERT or doses.doses != expert.doses:
                continue
            for one in doses.segments:
                if one.name in drawn:
                    place = _place(doses, one) | {"reference": str(expert.product)}
                    yield place | _differences(one, drawn[one.name])


def _differences(one: SegmentDoses, reference: SegmentDoses) -> Row:
    own, other = _values_of(one), _values_of(reference)
    out: Row = {}
    for metric, column in _COMPARED.items():
        value, expected = own.get(metric), other.get(metric)
        known = value is not None and value.value is not None and expected is not None and expected.value is not None
        out[column] = value.value if value is not None else None
        out[f"reference_{column}"] = expected.value if expected is not None else None
        out[f"difference_{column}"] = value.value - expected.value if known else None  # type: ignore[union-attr, operator]
        out[f"within_bounds_{column}"] = _overlap(value, expected) if known else None  # type: ignore[arg-type]
    return out


def _values_of(one: SegmentDoses) -> dict[str, DoseValue]:
    return {value.metric: value for value in one.values}


def _overlap(one: DoseValue, other: DoseValue) -> bool | None:
    """Whether the bounds of two values overlap; None where they have none."""
    if one.lower is None or one.upper is None or other.lower is None or other.upper is None:
        return None
    return one.lower <= other.upper and other.lower <= one.upper


def _checks_of_series(products: Sequence[DoseMeasurements]) -> list[Row]:
    """Findings of all products; those about the treatment as a whole once."""
    found = {check: doses.series_instance_uid for doses in products for check in doses.checks}
    return [_check_row(uid, check) for check, uid in found.items()]


def _check_row(uid: str, check: DoseCheck) -> Row:
    return {
        "SeriesInstanceUID": uid,
        "product": check.product or None,
        "organ": check.organ or None,
        "rule": check.rule,
        "severity": check.severity,
        "value": check.value,
        "limit": check.limit,
        "sentence": check.sentence,
    }

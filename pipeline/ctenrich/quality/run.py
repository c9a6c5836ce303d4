"""Check every product of a run, and write the tables ``quality`` and ``quality_ranking``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctenrich.errors import CtenrichError
from ctenrich.geometry.patient_axes import PatientAxes, patient_axes_of_series
from ctenrich.masks import crop_of
from ctenrich.progress import SILENT, Progress
from ctenrich.quality.case import OrganMask, QualityCase
from ctenrich.quality.cohort import OrganValues, compare_with_cohort, organ_values
from ctenrich.quality.dose_checks import checks_of_products, dose_outliers, mean_doses
from ctenrich.quality.finding import Finding
from ctenrich.quality.kept import CheckedProduct, CheckedSeries, find_kept, keep, key_of_series
from ctenrich.quality.limits import Limits, load_limits
from ctenrich.quality.ranking import RankedCase, rank_cases
from ctenrich.quality.registry import run_checks
from ctenrich.records import (
    Cohort,
    DoseMeasurements,
    Landmarks,
    Quantity,
    Regions,
    SegmentMasks,
    SeriesFacts,
    SliceScores,
    SortedSeries,
    Volume,
)
from ctenrich.results.parts import WorkerPool
from ctenrich.results.schema import arrow_schema
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace, atomic_path, load_array

__all__ = ["cases_of_series", "check_run", "write_quality"]

_PARALLEL_FROM = 4


@dataclass(frozen=True)
class _Series:
    """One series to be checked."""

    workspace: Workspace
    uid: str
    facts: SeriesFacts
    limits: Limits


def check_run(
    workspace: Workspace,
    cohort: Cohort,
    *,
    limits: Limits | None = None,
    progress: Progress = SILENT,
    processes: int = 1,
) -> tuple[RankedCase, ...]:
    """Check every product with masks of every series of a run, and rank them.

    Findings are kept with the records of the series: a second call checks only what has changed.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    cohort : Cohort
        Its series; sex and body part are taken from it.
    limits : Limits, optional
        Default: the package's.
    progress : Progress
        Advanced by every series.
    processes : int
        Processes that check series; a few series are checked in this process.

    Returns
    -------
    tuple of RankedCase
        The gravest first.
    """
    chosen = limits or load_limits()
    facts = {entry.series_instance_uid: entry.facts for entry in cohort.series}
    uids = SeriesStore(workspace).series()
    found: dict[tuple[str, str], list[Finding]] = {}
    values: list[OrganValues] = []
    doses: dict[tuple[str, str], Mapping[str, float]] = {}
    progress.start("quality", len(uids))
    work = (_Series(workspace, uid, facts.get(uid, SeriesFacts()), chosen) for uid in uids)
    with WorkerPool(processes if len(uids) >= _PARALLEL_FROM else 1) as pool:
        for uid, checked in zip(uids, pool.map(_check_series, work), strict=True):
            for product in checked:
                found[uid, product.product] = list(product.findings)
                values += product.values
                doses[uid, product.product] = product.mean_doses
            progress.advance("quality")
    progress.finish("quality")
    for outliers in (compare_with_cohort(values, chosen), dose_outliers(doses)):
        for key, more in outliers.items():
            found[key] += more
    return rank_cases([(uid, product, findings) for (uid, product), findings in found.items()])


def _check_series(work: _Series) -> tuple[CheckedProduct, ...]:
    """Check the products of a series; findings that were kept for the same records are taken.

    Where arrays were removed or cannot be read, each product has the finding ``not_checked``, and nothing is kept.
    """
    store = SeriesStore(work.workspace)
    key = key_of_series(store, work.uid, work.facts, work.limits)
    kept = find_kept(store, work.uid, key)
    if kept is not None:
        return kept.products
    products = []
    try:
        for case in cases_of_series(work.workspace, work.uid, work.facts):
            findings, values = tuple(run_checks(case, work.limits)), tuple(organ_values(case))
            products.append(CheckedProduct(case.product, findings, values, dict(case.mean_doses)))
    except (CtenrichError, OSError, ValueError):
        return _not_checked(store, work.uid)
    keep(store, work.uid, CheckedSeries(key, tuple(products)))
    return tuple(products)


def _not_checked(store: SeriesStore, uid: str) -> tuple[CheckedProduct, ...]:
    sentence = "the masks or the CT could not be read: nothing was checked"
    finding = Finding(organ="", check="not_checked", value=None, sentence=sentence)
    products = [p for p in store.products(uid) if store.find_valid(SegmentMasks, uid, p) is not None]
    return tuple(CheckedProduct(str(product), (finding,), ()) for product in products)


def cases_of_series(workspace: Workspace, uid: str, facts: SeriesFacts) -> Iterator[QualityCase]:
    """Load the products of a series that have masks.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    uid : str
        Series Instance UID.
    facts : SeriesFacts
        Of the header.
    """
    store = SeriesStore(workspace)
    series = store.find_valid(SortedSeries, uid)
    if series is None:
        return
    axes = patient_axes_of_series(series)
    spacing = axes.exchange((series.slice_spacing, *series.pixel_spacing))
    products = [m for p in store.products(uid) if (m := store.find_valid(SegmentMasks, uid, p)) is not None]
    if not products:
        return
    organs = {str(m.product): _organs(m, axes, spacing, workspace) for m in products}
    ct = _ct(store, uid, axes)
    shape = axes.exchange(series.shape)
    known = _of_bodypart(store, uid, series, axes)
    doses = [d for m in products if (d := store.find_valid(DoseMeasurements, uid, m.product)) is not None]
    dose_checks, means = checks_of_products(doses), {str(d.product): mean_doses(d) for d in doses}
    lungs = None
    for masks in products:
        name = str(masks.product)
        case = QualityCase(
            series_instance_uid=uid,
            product=name,
            shape=shape,
            spacing=spacing,
            ct=ct,
            organs=organs[name],
            empty=frozenset(s.name for s in masks.segments if s.absent),
            others={other: found for other, found in organs.items() if other != name},
            dose_checks=dose_checks.get(name, ()),
            mean_doses=means.get(name, {}),
            agreement=masks.agreement,
            sex=facts.patient_sex,
            body_part_examined=facts.body_part_examined,
            upside_down=axes.flips[0],
            **known,
        )
        if lungs is not None:
            case.__dict__["lungs"] = lungs
        lungs = case.lungs
        yield case


def write_quality(workspace: Workspace, ranked: tuple[RankedCase, ...]) -> dict[str, Path]:
    """Write the tables of the checks.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    ranked : tuple of RankedCase

    Returns
    -------
    dict
        Table name -> file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: dict[str, list[dict[str, Any]]] = {"quality": [], "quality_ranking": []}
    for rank, case in enumerate(ranked, 1):
        place = {"SeriesInstanceUID": case.series_instance_uid, "product": case.product}
        grave = [f for f in case.findings if f.weight > 0]
        rows["quality_ranking"].append(
            {
                "rank": rank,
                **place,
                "score": case.score,
                "findings": len(grave),
                "reasons": [f.sentence for f in grave],
            }
        )
        rows["quality"] += [place | _row(finding) for finding in case.findings]
    out = {}
    for name, found in rows.items():
        out[name] = workspace.tables / f"{name}.parquet"
        out[name].parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(out[name]) as temporary:
            pq.write_table(pa.Table.from_pylist(found, schema=arrow_schema(name)), temporary, compression="zstd")
    return out


def _row(finding: Finding) -> dict[str, Any]:
    return {
        "organ": finding.organ or None,
        "rule": finding.check,
        "value": finding.value,
        "low": finding.low,
        "high": finding.high,
        "unit": finding.unit or None,
        "severity": finding.severity.value,
        "weight": finding.weight,
        "slice_index": finding.slice_index,
        "sentence": finding.sentence,
    }


# ---------------------------------------------------------------- patient axes


def _ct(store: SeriesStore, uid: str, axes: PatientAxes) -> Any:
    volume = store.find_valid(Volume, uid)
    if volume is None or volume.quantity != Quantity.HU:
        return None
    path = store.workspace.resolve(uid, volume.array_path)
    return axes.apply(load_array(path)) if path.is_file() else None


def _organs(
    masks: SegmentMasks, axes: PatientAxes, spacing: tuple[float, float, float], workspace: Workspace
) -> dict[str, OrganMask]:
    out = {}
    for segment in masks.segments:
        crop = crop_of(masks, segment.number, workspace)
        if crop is None:
            continue
        mask, box = crop
        starts, ends = (box.k0, box.j0, box.i0), (box.k1, box.j1, box.i1)
        start = tuple(
            masks.shape[axis] - ends[axis] if flip else starts[axis]
            for axis, flip in zip(axes.axes, axes.flips, strict=True)
        )
        out[segment.name] = OrganMask(
            name=segment.name,
            mask=np.ascontiguousarray(axes.apply(mask)),
            start=(start[0], start[1], start[2]),
            shape=axes.exchange(masks.shape),
            spacing=spacing,
        )
    return out


# ---------------------------------------------------------------- body part regression


def _of_bodypart(store: SeriesStore, uid: str, series: SortedSeries, axes: PatientAxes) -> Mapping[str, Any]:
    """Scores, landmarks and regions of the first scorer of a series whose slices are axial."""
    axial = axes.axes[0] == 0
    for product in store.products(uid) if axial else ():
        scores = store.find_valid(SliceScores, uid, product)
        if scores is None:
            continue
        landmarks, regions = (store.find_valid(kind, uid, product) for kind in (Landmarks, Regions))
        examined = regions.examined if isinstance(regions, Regions) else ""
        marks = {}
        for item in landmarks.items if isinstance(landmarks, Landmarks) else ():
            if item.name in ("lung_start", "lung_end") and item.position is not None:
                height = (len(series.slices) - 1) * series.slice_spacing
                marks[item.name] = height - item.position if axes.flips[0] else item.position
        return {
            "scores": scores.cleaned[::-1] if axes.flips[0] else scores.cleaned,
            "lung_landmarks": marks,
            "body_parts": tuple(p for p in examined.split("-") if p and p != "NONE"),
            "spacing_valid": scores.valid_z_spacing,
            "order_reversed": scores.reverse_z_ordering,
        }
    return {}

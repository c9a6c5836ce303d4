"""Evaluate products against a reference: metrics per organ and series, and the tables of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctenrich.codes.mappings import plain_name
from ctenrich.errors import UsageError, did_you_mean
from ctenrich.evaluate.mask_sources import MaskSet, RefusedFile, file_masks, run_masks
from ctenrich.evaluate.metrics import MaskMetrics, measure_agreement
from ctenrich.evaluate.spooled import MetricTables, RowSpool
from ctenrich.evaluate.statistics import (
    METRIC_RULES,
    AnalysisOfVariance,
    MetricValue,
    PairedDifference,
    analyse_variance,
    compare_pairs,
)
from ctenrich.masks import bounding_box
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import Cohort, SeriesEntry
from ctenrich.results.schema import arrow_schema
from ctenrich.select.cohort_file import patients_of
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace, atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "STRATA",
    "Comparison",
    "EvaluatedMask",
    "Evaluation",
    "RunSource",
    "compare_metrics",
    "compare_sources",
    "evaluate_run",
    "metric_values",
    "strata_of",
    "write_evaluation",
]

STRATA = ("scanner", "kernel", "thickness", "sex")
"""Attributes by which series can be grouped."""

_THICKNESS = (
    (1.25, "up to 1.25 mm"),
    (2.5, "1.25 to 2.5 mm"),
    (3.75, "2.5 to 3.75 mm"),
    (float("inf"), "over 3.75 mm"),
)


@dataclass(frozen=True, kw_only=True)
class RunSource:
    """A run whose products are compared."""

    workspace: Workspace
    settings: Settings
    cohort: Cohort
    product: str = ""
    """Key of the only product that is compared; empty: all."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedMask:
    """Agreement of one mask with the reference."""

    series_instance_uid: str
    study_instance_uid: str
    patient_id: str | None
    segment: str
    """Key of mappings/segments.csv; ``#2`` and so on for further masks of one structure."""
    reference: str
    product: str
    metrics: MaskMetrics
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Results of an evaluation, and notes on what was not compared."""

    reference: str
    masks: Sequence[EvaluatedMask]
    """In the order of the reference's series; a tuple if they are few, otherwise read from a temporary file."""
    notes: tuple[str, ...] = ()
    refused: tuple[RefusedFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Paired comparisons of products."""

    differences: tuple[PairedDifference, ...] = ()
    variances: tuple[AnalysisOfVariance, ...] = field(default=())


def evaluate_run(
    source: RunSource, *, reference: str = "expert", products: Sequence[str] = (), progress: Progress = SILENT
) -> Evaluation:
    """Compare the masks of a run's products with a reference.

    Parameters
    ----------
    source : RunSource
        The run.
    reference : str
        Key of a product of the run, or path of a SEG, RTSTRUCT or NIfTI file, or of a folder of them.
    products : sequence of str
        Keys of the products to compare; empty: every one but the reference.
    progress : Progress
        Advanced by every series.

    Returns
    -------
    Evaluation

    Raises
    ------
    UsageError
        NOT_FOUND for a product that no series of the run has, or a reference that is neither a product nor a file.
    """
    sets = list(run_masks(source.workspace))
    names = {one.name for one in sets}
    references, refused = _find_reference(reference, sets, names, source)
    for name in products:
        if name not in names:
            raise _unknown_product(name, names)
    own = {one.name for one in references}
    others = [s for s in sets if s.name not in own and (not products or s.name in products)]
    return _evaluate(reference, references, others, _Context(patients_of(source.cohort), refused, progress))


def compare_sources(
    sources: Sequence[RunSource | Path], *, reference: str = "expert", progress: Progress = SILENT
) -> Evaluation:
    """Compare products of several runs, and files of others, with one reference.

    The reference is looked for in the first run that has it. If no run has an expert's masks, the first product is the
    reference, and a note states it. Products of several runs are named ``RUN/PRODUCT``.

    Parameters
    ----------
    sources : sequence of RunSource or Path
        Runs, and files or folders of SEG, RTSTRUCT or NIfTI on the series of the first run.
    reference : str
        See `evaluate_run`.
    progress : Progress
        Advanced by every series.

    Returns
    -------
    Evaluation

    Raises
    ------
    UsageError
        BAD_PARAMETER without a run; NOT_FOUND for an unknown product or reference, and if the runs have no series in
        common.
    """
    runs = [s for s in sources if isinstance(s, RunSource)]
    if not runs:
        raise UsageError(
            Reason.BAD_PARAMETER, "no run is named", "name at least one run's folder, or a CSV file of metrics"
        )
    several = len({run.workspace.root for run in runs}) > 1
    available: list[MaskSet] = []
    chosen: list[MaskSet] = []
    taken: set[int] = set()
    refused: list[RefusedFile] = []
    loaded: dict[Path, list[MaskSet]] = {}
    for run in runs:
        prefix = f"{run.workspace.root.name}/" if several else ""
        if run.workspace.root not in loaded:
            loaded[run.workspace.root] = list(run_masks(run.workspace, prefix=prefix))
            available += loaded[run.workspace.root]
        sets = loaded[run.workspace.root]
        if run.product and run.product not in {s.name.removeprefix(prefix) for s in sets}:
            raise _unknown_product(run.product, {s.name.removeprefix(prefix) for s in sets})
        wanted_sets = [s for s in sets if run.product in ("", s.name.removeprefix(prefix))]
        chosen += [s for s in wanted_sets if id(s) not in taken]
        taken.update(map(id, wanted_sets))
    for path in (s for s in sources if isinstance(s, Path)):
        found, bad = file_masks(path, runs[0].workspace, runs[0].settings)
        chosen += found
        refused += bad
    notes: list[str] = []
    if several:
        notes += _check_common_series(loaded)
    names = {one.name for one in available}
    wanted = next(
        (n for n in (reference, *(f"{r.workspace.root.name}/{reference}" for r in runs)) if n in names), reference
    )
    if wanted not in names and reference == "expert":
        wanted = chosen[0].name if chosen else reference
        notes.append(f"no series has masks of an expert: {wanted} is the reference")
    references, bad = _find_reference(wanted, available, names, runs[0])
    own = {one.name for one in references}
    others = [s for s in chosen if s.name not in own and not _same_product(s.name, wanted, reference)]
    patients = {uid: patient for run in runs for uid, patient in patients_of(run.cohort).items()}
    return _evaluate(wanted, references, others, _Context(patients, (*refused, *bad), progress), notes)


def metric_values(masks: Iterable[EvaluatedMask]) -> Iterator[MetricValue]:
    """Defined metrics of evaluated masks, for the comparison of products."""
    for one in masks:
        row = _metric_columns(one.metrics)
        row["volume_error"] = abs(one.metrics.volume_difference) if one.metrics.dice is not None else None
        for metric in METRIC_RULES:
            value = row.get(metric)
            if value is not None:
                yield MetricValue(
                    series=one.series_instance_uid,
                    segment=one.segment,
                    product=one.product,
                    metric=metric,
                    value=value,
                )


def compare_metrics(
    values: Sequence[MetricValue] | MetricTables, *, strata: Mapping[str, Mapping[str, str]] | None = None
) -> Comparison:
    """Compare products over all series, and within strata.

    Parameters
    ----------
    values : sequence of MetricValue, or MetricTables
        :func:`ctenrich.evaluate.statistics.tables_of` many values.
    strata : mapping, optional
        Attribute -> series -> stratum: :func:`strata_of`.

    Returns
    -------
    Comparison
    """
    differences, variances = compare_pairs(values), analyse_variance(values)
    for of_series in (strata or {}).values():
        differences += compare_pairs(values, strata=of_series)
        variances += analyse_variance(values, strata=of_series)
    return Comparison(differences=differences, variances=variances)


def strata_of(series: Iterable[SeriesEntry], by: Sequence[str]) -> dict[str, dict[str, str]]:
    """Group series by attributes.

    Parameters
    ----------
    series : iterable of SeriesEntry
        Read once, and only if `by` names an attribute.
    by : sequence of str
        Of `STRATA`.

    Returns
    -------
    dict
        Attribute -> Series Instance UID -> stratum, e.g. ``sex: F``.

    Raises
    ------
    UsageError
        BAD_PARAMETER for another attribute.
    """
    for name in by:
        if name not in STRATA:
            raise UsageError(
                Reason.BAD_PARAMETER, f"series are not grouped by {name[:40]!r}", f"use {', '.join(STRATA)}"
            )
    found: dict[str, dict[str, str]] = {name: {} for name in by}
    for entry in series if found else ():
        for name, strata in found.items():
            strata[entry.series_instance_uid] = f"{name}: {_stratum(entry, name)}"
    return found


def write_evaluation(workspace: Workspace, evaluation: Evaluation, comparison: Comparison) -> dict[str, Path]:
    """Write the tables of an evaluation; rows of other references stay.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    evaluation : Evaluation
    comparison : Comparison

    Returns
    -------
    dict
        Table name -> file.
    """
    stated = {"reference": evaluation.reference}
    rows: dict[str, Iterable[dict[str, Any]]] = {
        "evaluation": map(_evaluation_row, evaluation.masks),
        "evaluation_differences": (stated | asdict(d) for d in comparison.differences),
        "evaluation_variance": (stated | asdict(v) | {"products": list(v.products)} for v in comparison.variances),
    }
    references = {one.reference for one in evaluation.masks} | {evaluation.reference}
    return {name: _write_table(workspace, name, found, references) for name, found in rows.items()}


# ---------------------------------------------------------------- comparing


@dataclass(frozen=True)
class _Context:
    patients: Mapping[str, str]
    """Series Instance UID -> Patient ID."""
    refused: tuple[RefusedFile, ...]
    progress: Progress


def _find_reference(
    reference: str, sets: Sequence[MaskSet], names: set[str], source: RunSource
) -> tuple[list[MaskSet], tuple[RefusedFile, ...]]:
    if reference in names:
        return [s for s in sets if s.name == reference], ()
    if Path(reference).exists():
        found, refused = file_masks(Path(reference), source.workspace, source.settings)
        return list(found), refused
    raise _unknown_product(reference, names)


def _unknown_product(name: str, names: set[str]) -> UsageError:
    have = f"there are {', '.join(sorted(names))}" if names else "there are no masks"
    message = f"no series of the run has masks of {name[:80]!r}"
    return UsageError(Reason.NOT_FOUND, message, did_you_mean(name, names, have))


def _same_product(name: str, wanted: str, reference: str) -> bool:
    """Whether a product of another run is the reference's own counterpart, e.g. the expert of both runs."""
    return name == wanted or (wanted != reference and name.endswith(f"/{reference}"))


def _check_common_series(loaded: Mapping[Path, Sequence[MaskSet]]) -> list[str]:
    series = {root: {s.series_instance_uid for s in sets} for root, sets in loaded.items()}
    common = set.intersection(*series.values())
    if not common:
        counts = ", ".join(f"{root.name}: {len(uids)}" for root, uids in series.items())
        text = f"the runs have no series with masks in common ({counts})"
        raise UsageError(Reason.NOT_FOUND, text, "compare runs of the same cohort")
    return [
        f"{len(uids - common)} series with masks are only in some of the runs, among them in {root.name}"
        for root, uids in series.items()
        if uids - common
    ]


def _evaluate(
    reference: str,
    references: Sequence[MaskSet],
    others: Sequence[MaskSet],
    context: _Context,
    notes: Sequence[str] = (),
) -> Evaluation:
    by_series: dict[str, list[MaskSet]] = defaultdict(list)
    for one in others:
        by_series[one.series_instance_uid].append(one)
    found: RowSpool[EvaluatedMask] = RowSpool()
    remarks = _Remarks()
    context.progress.start("evaluate", len(references))
    for first in references:
        uid = first.series_instance_uid
        for mask in _compare_masks(first, by_series.get(uid, ()), context.patients.get(uid), remarks):
            found.add(mask)
        context.progress.advance("evaluate")
    context.progress.finish("evaluate")
    without = set(by_series) - {s.series_instance_uid for s in references}
    out = [*notes]
    if without:
        out.append(f"{len(without)} series have no masks of the reference {reference}: not compared")
    if not others:
        out.append("there is no product to compare with the reference")
    return Evaluation(
        reference=reference, masks=found.rows(), notes=(*out, *remarks.sentences()), refused=context.refused
    )


class _Remarks:
    """Counts what was not compared: (source, structure, cause) -> number of series."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def add(self, source: str, structure: str, cause: str) -> None:
        self._counts[source, structure, cause] += 1

    def sentences(self) -> tuple[str, ...]:
        groups: dict[tuple[str, str, int], list[str]] = defaultdict(list)
        for (source, structure, cause), count in sorted(self._counts.items()):
            groups[source, cause, count].append(structure)
        return tuple(
            f"{source}: {cause} ({count} series)"
            + (f": {', '.join(s for s in structures if s)}" if any(structures) else "")
            for (source, cause, count), structures in groups.items()
        )


def _compare_masks(
    first: MaskSet, others: Sequence[MaskSet], patient: str | None, remarks: _Remarks
) -> Iterator[EvaluatedMask]:
    usable = []
    series = first.series
    for other in others:
        same = other.series.sop_instance_uids == series.sop_instance_uids
        if same and other.series.shape == series.shape:
            usable.append(other)
        else:
            remarks.add(other.name, "", "masks on another grid than the reference were not compared")
    numbers = {other.name: {name: n for n, name in other.segments} for other in usable}
    spacing = (series.slice_spacing, *series.pixel_spacing)
    counts = Counter(plain_name(name) for _, name in first.segments)
    for own, name in first.segments:
        if name in first.unsound:
            remarks.add(first.name, name, "not compared, because an error was found in what it was made from")
            continue
        mask = None
        for other in usable:
            number = numbers[other.name].get(name, numbers[other.name].get(plain_name(name)))
            if number is None:
                remarks.add(other.name, name, "has no mask of a structure of the reference")
                continue
            if name in other.unsound:
                remarks.add(other.name, name, "not compared, because an error was found in what it was made from")
                continue
            mask = first.load(own) if mask is None else mask
            theirs = other.load(number)
            found = measure_agreement(theirs, mask, spacing)
            yield EvaluatedMask(
                series_instance_uid=series.series_instance_uid,
                study_instance_uid=series.study_instance_uid,
                patient_id=patient,
                segment=name,
                reference=first.name,
                product=other.name,
                metrics=found,
                note=_note(found, theirs, mask, counts[plain_name(name)]),
            )


def _note(found: MaskMetrics, mask: Any, reference: Any, same_structure: int) -> str:
    notes = []
    if found.dice is None:
        notes.append("both masks are empty")
    elif found.volume == 0:
        notes.append("the product's mask is empty")
    elif found.reference_volume == 0:
        notes.append("the reference's mask is empty")
    elif found.dice == 0:
        one, two = bounding_box(mask), bounding_box(reference)
        if one is not None and two is not None and (one.k1 <= two.k0 or two.k1 <= one.k0):
            notes.append("the masks have no slice in common")
    if same_structure > 1:
        notes.append(f"the reference has {same_structure} masks of this structure; each is compared")
    return "; ".join(notes)


# ---------------------------------------------------------------- rows


def _metric_columns(found: MaskMetrics) -> dict[str, float | None]:
    return {
        "dice": found.dice,
        "hausdorff": found.hausdorff,
        "hausdorff_95_max": found.hausdorff_95_max,
        "hausdorff_95_pooled": found.hausdorff_95_pooled,
        "hausdorff_95_voxels": found.hausdorff_95_voxels,
        "mean_surface_distance": found.mean_surface_distance,
        **{f"surface_dice_{tolerance:g}mm": value for tolerance, value in found.surface_dice.items()},
        "volume": found.volume,
        "reference_volume": found.reference_volume,
        "volume_difference": found.volume_difference,
        "centroid_distance": found.centroid_distance,
        "added_path_length": None if found.dice is None else found.added_path_length,
    }


def _evaluation_row(one: EvaluatedMask) -> dict[str, Any]:
    return {
        "SeriesInstanceUID": one.series_instance_uid,
        "StudyInstanceUID": one.study_instance_uid,
        "PatientID": one.patient_id,
        "segment": one.segment,
        "reference": one.reference,
        "product": one.product,
        **_metric_columns(one.metrics),
        "note": one.note or None,
    }


def _stratum(entry: SeriesEntry, name: str) -> str:
    facts = entry.facts
    if name == "scanner":
        return " ".join(filter(None, (facts.manufacturer, facts.manufacturer_model_name))) or "not stated"
    if name == "thickness":
        thickness = facts.slice_thickness
        return "not stated" if thickness is None else next(text for top, text in _THICKNESS if thickness <= top)
    return (facts.convolution_kernel if name == "kernel" else facts.patient_sex) or "not stated"


_ROW_GROUP = 65_536
"""Rows of a table in memory, and in a row group of its file."""
_AT_ONCE = 4096
"""Rows that are dictionaries at a time."""


def _write_table(workspace: Workspace, name: str, rows: Iterable[dict[str, Any]], references: set[str]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, schema = workspace.tables / f"{name}.parquet", arrow_schema(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        parts, count = [schema.empty_table()], 0
        for part in chain(_kept_rows(path, schema, references), _tables_of_rows(rows, schema)):
            if count + part.num_rows > _ROW_GROUP and count:
                writer.write_table(pa.concat_tables(parts))
                parts, count = [], 0
            parts.append(part)
            count += part.num_rows
        writer.write_table(pa.concat_tables(parts))
    return path


def _kept_rows(path: Path, schema: pa.Schema, references: set[str]) -> Iterator[pa.Table]:
    """Rows of a table with other references; none if the table has another form."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not path.is_file():
        return
    with pq.ParquetFile(path) as file:
        if not file.schema_arrow.equals(schema):
            return
        for group in range(file.num_row_groups):
            before = file.read_row_group(group)
            yield before.filter(pc.invert(pc.is_in(before["reference"], pa.array(sorted(references)))))


def _tables_of_rows(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    import pyarrow as pa

    remaining = iter(rows)
    while True:
        parts = (list(islice(remaining, min(_AT_ONCE, _ROW_GROUP - start))) for start in range(0, _ROW_GROUP, _AT_ONCE))
        made = [pa.Table.from_pylist(part, schema=schema) for part in parts if part]
        if not made:
            return
        yield pa.concat_tables(made).combine_chunks()

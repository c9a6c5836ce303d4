"""CONSORT flow of treatments: patients and treatments that enter, are excluded for each reason or rule, and remain."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.select.compare import read_lock
from ctenrich.select.consort import Consort, Exclusion, FlowStage, load_consort, parse_consort
from ctenrich.select.files import lock_path
from ctenrich.treatments.files import read_excluded_treatments, read_treatments
from ctenrich.treatments.records import ExcludedTreatment, Treatment
from ctenrich.workspace import require_file

__all__ = ["count_decisions", "treatment_consort", "treatment_consorts"]

LEVELS = ("patients", "treatments")


def treatment_consorts(path: Path, *, by_site: bool = False) -> dict[str, Consort]:
    """Return the flow diagram of a treatments file, or of a JSON file of counts; one per site if asked for.

    Parameters
    ----------
    path : Path
        A treatments file, or a JSON file as :func:`ctenrich.select.consort.load_consort` reads it. One with the counts
        of several sites has them in ``{"sites": {"NAME": {...}}}``.
    by_site : bool
        Whether the diagram is split by the registry's sites.

    Returns
    -------
    dict
        Site -> diagram; "" is the diagram of all.

    Raises
    ------
    UsageError
        NOT_FOUND, BAD_COHORT; BAD_PARAMETER if sites are asked for and the file has none.
    """
    if path.suffix == ".json":
        return _of_counts(path, by_site)
    treatments, excluded = read_treatments(path), read_excluded_treatments(path)
    if not by_site:
        return {"": treatment_consort(treatments, excluded)}
    sites = sorted({one.site for one in treatments} | {one.site for one in excluded})
    if sites in ([], [""]):
        hint = "give the registry a column site, and make the treatments again"
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} has no sites", hint)
    return {
        site or "no site": treatment_consort(
            [one for one in treatments if one.site == site], [one for one in excluded if one.site == site]
        )
        for site in sites
    }


def count_decisions(path: Path) -> dict[str, int]:
    """Count the decisions of people that were applied when a treatments file was made.

    Returns
    -------
    dict
        Kind -> number; empty for a file of counts, and without decisions.
    """
    lock = read_lock(lock_path(path)) if path.suffix == ".parquet" and lock_path(path).is_file() else {}
    decisions = lock.get("treatments", {}).get("decisions", [])
    return dict(sorted(Counter(str(one["kind"]) for one in decisions).items()))


def _of_counts(path: Path, by_site: bool) -> dict[str, Consort]:
    if not by_site:
        return {"": load_consort(path)}
    require_file(path)
    try:
        sites = json.loads(path.read_text("utf-8"))["sites"]
        return {str(name): parse_consort(data) for name, data in sites.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(Reason.BAD_COHORT, f"{path.name} does not hold the counts of several sites") from error


def treatment_consort(treatments: Sequence[Treatment], excluded: Sequence[ExcludedTreatment]) -> Consort:
    """Count the flow diagram of treatments.

    Parameters
    ----------
    treatments : sequence of Treatment
        Those that remain.
    excluded : sequence of ExcludedTreatment
        Those that were left out, each with its reason; a rule of the rules file has a line of its own.

    Returns
    -------
    Consort
        A patient is excluded together with the last of its treatments, under that treatment's reason.
    """
    order = {reason: place for place, reason in enumerate(Reason)}
    kept = {(one.series.collection_id, one.patient_id) for one in treatments}
    last: dict[tuple[str, str], tuple[int, str]] = {}
    for one in excluded:
        patient = (one.collection_id, one.patient_id)
        if patient not in kept:
            last[patient] = max(last.get(patient, (-1, "")), (order[one.reason], one.rule))
    patients = Counter(last.values())
    rows = Counter((order[one.reason], one.rule) for one in excluded)
    reasons = list(Reason)
    exclusions = tuple(
        Exclusion(
            f"{reasons[place].value}: {rule}" if rule else reasons[place].value,
            {"patients": patients[place, rule], "treatments": number},
            reasons[place].sentence,
        )
        for (place, rule), number in sorted(rows.items())
    )
    start = {"patients": len(kept | last.keys()), "treatments": len(treatments) + len(excluded)}
    end = {"patients": len(kept), "treatments": len(treatments)}
    return Consort(LEVELS, (FlowStage("Start set", start, exclusions), FlowStage("Treatments", end)))

"""Findings about doses for the ranked list: of the treatment, of the organs of a product, and outliers of a cohort."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ctenrich.dose.checks import check_cohort
from ctenrich.quality.case import QualityCase
from ctenrich.quality.finding import Finding
from ctenrich.quality.limits import Limits
from ctenrich.reasons import Reason
from ctenrich.records import DoseCheck, DoseMeasurements, Severity

__all__ = ["check_doses", "checks_of_products", "dose_outliers", "mean_doses"]

_NONE = "dose.none"
_MEAN = "Mean[Gy]"


def check_doses(case: QualityCase, limits: Limits) -> Iterator[Finding]:
    """Findings of the stage ``dose``, by its own limits.

    Parameters
    ----------
    case : QualityCase
    limits : Limits
        Not used.

    Yields
    ------
    Finding
    """
    for check in case.dose_checks:
        yield _finding(check)


def _finding(check: DoseCheck) -> Finding:
    value, limit = check.value, check.limit
    high = limit if value is not None and limit is not None and value > limit else None
    return Finding(
        organ=check.organ,
        check=check.rule.replace(".", "_"),
        value=value,
        low=limit if high is None else None,
        high=high,
        severity=Severity(check.severity),
        sentence=check.sentence,
    )


def checks_of_products(doses: Sequence[DoseMeasurements]) -> Mapping[str, tuple[DoseCheck, ...]]:
    """Findings about the doses of a series by product; those about the treatment as a whole are the first product's.

    A series without an RT Dose has a note: it may be none of radiotherapy.

    Parameters
    ----------
    doses : sequence of DoseMeasurements
        Of the products of one series.

    Returns
    -------
    dict
        Product -> findings.
    """
    out: dict[str, tuple[DoseCheck, ...]] = {}
    seen: set[DoseCheck] = set()
    for one in doses:
        none = "note" if one.reason is Reason.NO_DOSE else "warning"
        own = [replace(check, severity=none) if check.rule == _NONE else check for check in one.checks]
        out[str(one.product)] = tuple(check for check in own if check.product or check not in seen)
        seen.update(own)
    return out


def mean_doses(doses: DoseMeasurements) -> dict[str, float]:
    """Mean dose of every organ, Gy."""
    found = {one.name: value.value for one in doses.segments for value in one.values if value.metric == _MEAN}
    return {name: value for name, value in found.items() if value is not None}


def dose_outliers(means: Mapping[tuple[str, str], Mapping[str, float]]) -> dict[tuple[str, str], list[Finding]]:
    """Find organs whose mean dose is far from that of the other series.

    Parameters
    ----------
    means : mapping
        (Series Instance UID, product) -> organ -> mean dose, Gy.

    Returns
    -------
    dict
        (Series Instance UID, product) -> findings.
    """
    rows = [
        {"SeriesInstanceUID": uid, "product": product, "organ": organ, "metric": _MEAN, "value": mean}
        for (uid, product), organs in means.items()
        for organ, mean in organs.items()
    ]
    out: dict[tuple[str, str], list[Finding]] = {}
    for uid, check in check_cohort(rows):
        out.setdefault((uid, check.product), []).append(_finding(check))
    return out

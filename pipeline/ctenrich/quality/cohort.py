"""Compare the organs of a product over a cohort: values far from the others, by robust statistics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctenrich.quality.case import QualityCase
from ctenrich.quality.finding import Finding
from ctenrich.quality.limits import Limits
from ctenrich.records import Severity

__all__ = ["OrganValues", "compare_with_cohort", "organ_values"]

_UNITS = {"volume": "mL", "longest_side": "mm", "median_attenuation": "HU"}


@dataclass(frozen=True, kw_only=True)
class OrganValues:
    """Values of one organ of one case that are compared over the cohort."""

    series_instance_uid: str
    product: str
    organ: str
    values: Mapping[str, float]


def organ_values(case: QualityCase) -> tuple[OrganValues, ...]:
    """Volume, longest side and median attenuation of every organ that the scan contains completely."""
    out = []
    for name, organ in case.organs.items():
        if organ.at_bottom or organ.at_top or name.startswith(("gtv", "roi:")):
            continue
        values = {"volume": organ.volume, "longest_side": float(organ.extent.max())}
        if case.ct is not None:
            values["median_attenuation"] = float(np.median(case.ct[organ.box][organ.mask]))
        out.append(
            OrganValues(series_instance_uid=case.series_instance_uid, product=case.product, organ=name, values=values)
        )
    return tuple(out)


def compare_with_cohort(rows: Sequence[OrganValues], limits: Limits) -> dict[tuple[str, str], list[Finding]]:
    """Find values far from the median of the cohort.

    Parameters
    ----------
    rows : sequence of OrganValues
        Of all cases.
    limits : Limits

    Returns
    -------
    dict
        (Series Instance UID, product) -> findings.
    """
    groups: dict[tuple[str, str, str], list[OrganValues]] = defaultdict(list)
    for row in rows:
        for quantity in row.values:
            groups[row.product, row.organ, quantity].append(row)
    out: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for (product, organ, quantity), members in groups.items():
        if len(members) < limits.number("cohort", "least"):
            continue
        values = np.array([m.values[quantity] for m in members])
        middle = float(np.median(values))
        spread = float(np.median(np.abs(values - middle))) / 0.6745
        reach = limits.number("cohort", "z") * spread
        for member, value in zip(members, values.tolist(), strict=True):
            if spread > 0 and abs(value - middle) > reach:
                unit = _UNITS[quantity]
                text = (
                    f"{organ}: {quantity.replace('_', ' ')} {value:.4g} {unit} is far from the median of the cohort, "
                    f"{middle:.4g} {unit} (modified z-score {(value - middle) / spread:+.1f}, {len(members)} series)"
                )
                found = Finding(
                    organ=organ,
                    check=f"cohort_{quantity}",
                    value=value,
                    low=middle - reach,
                    high=middle + reach,
                    unit=unit,
                    severity=Severity.WARNING,
                    sentence=text,
                )
                out[member.series_instance_uid, product].append(found)
    return out

"""Dose metrics of samples: interpolation, ends, weights, and the reasons of metrics without a value."""

from __future__ import annotations

import numpy as np
import pytest

from ctenrich.dose.metrics import DoseSamples, curve_of, lower_bound_of_incomplete, metric_value, parse_metric
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

TEN = DoseSamples(np.arange(10.0, 0, -1), 100.0)
"""1 to 10 Gy, each in 0.1 cm3."""


def value(samples: DoseSamples, name: str) -> float | Reason:
    return metric_value(samples, parse_metric(name))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("volume", 1.0),
        ("mean", 5.5),
        ("min", 1.0),
        ("max", 10.0),
        ("D0%", 10.0),
        ("D5%", 10.0),  # the middle of the hottest sample
        ("D10%", 9.5),
        ("D50%", 5.5),
        ("D95%", 1.0),
        ("D100%", 1.0),
        ("D0.1cc", 9.5),
        ("D1cc", 1.0),
        ("V5Gy[%]", 60.0),
        ("V5.5Gy[%]", 50.0),
        ("V10.1Gy[%]", 0.0),
        ("V5Gy[cc]", 0.6),
        ("D1.1cc", Reason.BEYOND_VOLUME),
    ],
)
def test_values(name: str, expected: float | Reason) -> None:
    assert value(TEN, name) == (expected if isinstance(expected, Reason) else pytest.approx(expected))


def test_samples_of_different_volumes_equal_the_same_samples_split() -> None:
    weighted = DoseSamples(np.array([9.0, 6.0, 2.0]), np.array([100.0, 300.0, 200.0]))
    assert value(weighted, "mean") == pytest.approx((9 + 18 + 4) / 6)
    assert value(weighted, "V6Gy[cc]") == pytest.approx(0.4)
    # middles at 50, 250 and 500 mm3
    assert value(weighted, "D0.15cc") == pytest.approx(7.5)
    assert value(weighted, "D0.25cc") == pytest.approx(6.0)
    assert value(weighted, "D0.375cc") == pytest.approx(4.0)
    assert value(weighted, "D0.6cc") == pytest.approx(2.0)


def test_a_sample_of_exactly_the_dose_has_it() -> None:
    """20000 x 0.001 may be a little less than 20 in floating point."""
    samples = DoseSamples(np.full(4, np.nextafter(20.0, 0)), 100.0)
    assert value(samples, "V20Gy[%]") == 100.0


@pytest.mark.parametrize("name", ["mean", "min", "max", "D95%", "D2%", "D0.1cc", "V5Gy[%]", "V5Gy[cc]"])
def test_an_incomplete_dose_gives_no_value(name: str) -> None:
    assert value(DoseSamples(TEN.doses, 100.0, outside=10.0), name) is Reason.DOSE_INCOMPLETE


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("D10%", 8.5),  # 10 % of 2 cm3 are the two hottest samples
        ("D0.1cc", 9.5),
        ("V5Gy[cc]", 0.6),
        ("max", 10.0),
        ("D95%", None),
        ("mean", None),
        ("min", None),
        ("V5Gy[%]", None),
    ],
)
def test_the_hot_end_of_an_incomplete_dose_has_a_lower_bound(name: str, least: float | None) -> None:
    samples = DoseSamples(TEN.doses, 100.0, outside=1000.0)
    assert lower_bound_of_incomplete(samples, parse_metric(name)) == (None if least is None else pytest.approx(least))


def test_an_empty_structure_has_no_metrics() -> None:
    assert value(DoseSamples(np.zeros(0), 1.0), "mean") is Reason.EMPTY_STRUCTURE


def test_a_small_structure_has_its_cold_metrics() -> None:
    """dicompyler-core gave D97 = 0 where D100 was 76 Gy."""
    samples = DoseSamples(np.array([76.5, 76.3, 76.2]), 3.0)
    assert value(samples, "D97%") == pytest.approx(76.2)
    assert value(samples, "D100%") == pytest.approx(76.2)


@pytest.mark.parametrize("name", ["D", "D95", "V20", "V20Gy", "D101%", "median", "D-1%", "V20Gy[Gy]"])
def test_names_that_are_no_metrics(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_metric(name)
    assert caught.value.reason is Reason.BAD_PARAMETER


@pytest.mark.parametrize("name", ["D95%", "D95%[Gy]", "d95%"])
def test_spellings_of_one_metric(name: str) -> None:
    assert parse_metric(name).name == "D95%[Gy]"


def test_the_curve_falls_from_the_volume_to_nothing() -> None:
    doses, volumes = curve_of(TEN, step=0.5)
    assert doses[1] == 0.5
    assert volumes[0] == pytest.approx(1.0)
    assert volumes[-1] == 0.0
    assert doses[-1] > 10
    assert (np.diff(volumes) <= 0).all()
    assert volumes[doses.tolist().index(5.0)] == pytest.approx(0.6)

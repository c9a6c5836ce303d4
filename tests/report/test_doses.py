"""Doses on the page of a series: values with bounds, reasons, curves and checks."""

from __future__ import annotations

from typing import Any

from ctenrich.report.doses import dose_curves, dose_part


def row(metric: str, value: float | None, **further: Any) -> dict[str, Any]:
    return {
        "organ": "heart", "product": "expert", "metric": metric, "value": value, "unit": "Gy", "lower": None,
        "upper": None, "reason": None, "doses": "1 x 2.25.1", "prescription_gy": 70.0,
        "prescription_source": "beam_doses",
    } | further  # fmt: skip


def test_values_bounds_and_reasons() -> None:
    metrics = [
        row("Mean[Gy]", 23.64, lower=23.2, upper=24.1, step_slice_mm=3.0, step_row_mm=0.977, step_column_mm=0.977),
        row("D2cc[Gy]", None, reason="DOSE_INCOMPLETE", lower=70.0),
    ]
    part = dose_part(metrics, [], [{"severity": "warning", "sentence": "the maximum is high"}])
    assert part is not None
    assert part["names"] == ["Mean, Gy", "D2cc, Gy"]
    assert part["rows"][0]["cells"] == [
        {"text": "23.64", "bounds": "23.20 to 24.10"},
        {"text": "DOSE_INCOMPLETE", "bounds": "at least 70.00"},
    ]
    assert part["rows"][0]["sampling"] == "3.00 × 0.98 × 0.98"
    assert part["prescription"].startswith("70 Gy (sum of fractions × Beam Dose")
    assert part["doses"] == "2.25.1"
    assert part["checks"] == [{"severity": "warning", "sentence": "the maximum is high"}]


def test_a_series_without_doses_has_no_part() -> None:
    assert dose_part([], [], []) is None


def test_curves_are_drawn_with_a_text_alternative() -> None:
    curves = [
        {"organ": "<heart>", "product": product, "dose_gy": dose, "volume_share": share}
        for product in ("expert", "net")
        for dose, share in ((0.0, 1.0), (10.0, 0.5), (20.0, 0.0))
    ]
    svg = str(dose_curves(curves))
    assert svg.count("<polyline") == 2
    assert svg.count("<li>") == 2
    assert "&lt;heart&gt;" in svg
    assert "<heart>" not in svg
    assert "by expert, net" in svg
    assert dose_curves([]) == ""

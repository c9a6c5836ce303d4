"""Comparison of two tables of dose metrics by the rule of agreement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.dose.compare import compare_tables, read_metrics
from ctenrich.errors import CtenrichError
from ctenrich.reasons import Reason


def row(value: float | None, unit: str = "Gy", **further: Any) -> dict[str, Any]:
    return {"structure": "Heart", "metric": "Mean[Gy]", "unit": unit, "value": value, **further}


@pytest.mark.parametrize(
    ("unit", "first", "second", "agrees"),
    [
        ("Gy", 1.0, 1.49, True),
        ("Gy", 1.0, 1.51, False),
        ("Gy", 60.0, 61.1, True),
        ("Gy", 60.0, 61.3, False),
        ("cm3", 10.0, 10.9, True),
        ("cm3", 10.0, 11.1, False),
        ("cm3", 500.0, 504.9, True),
        ("cm3", 500.0, 506.0, False),
        ("%", 20.0, 20.9, True),
        ("%", 20.0, 21.1, False),
    ],
)
def test_the_rule(unit: str, first: float, second: float, agrees: bool) -> None:
    (found,) = compare_tables([row(first, unit)], [row(second, unit)])
    assert found.agrees is agrees


def test_a_missing_value_is_no_agreement() -> None:
    (found,) = compare_tables([row(None)], [row(3.0)])
    assert found.agrees is None


def test_bounds_and_sampling() -> None:
    steps = {"step_slice_mm": 3.0, "step_row_mm": 1.0, "step_column_mm": 1.0}
    (found,) = compare_tables([row(5.0, lower=4.0, upper=6.0, **steps)], [row(7.0, lower=5.5, upper=8.0)])
    assert found.agrees is False
    assert found.within_bounds is True
    assert found.sampling == ("3.00 x 1.00 x 1.00", "")


@pytest.mark.parametrize(
    ("first", "second"),
    [([row(1.0)], [{**row(1.0), "structure": "Cord"}]), ([row(1.0), row(2.0)], [row(1.0)])],
)
def test_tables_that_cannot_be_compared(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    with pytest.raises(CtenrichError) as caught:
        compare_tables(first, second)
    assert caught.value.reason is Reason.DECODE_ERROR


def test_files(tmp_path: Path) -> None:
    a, b = tmp_path / "a.csv", tmp_path / "b.json"
    a.write_text("structure,metric,unit,value\nHeart,Mean[Gy],Gy,5.0\nHeart,D2cc[Gy],Gy,\n", "utf-8")
    b.write_text('[{"structure": "Heart", "metric": "Mean[Gy]", "unit": "Gy", "value": 9.0},'
                 ' {"structure": "Heart", "metric": "D2cc[Gy]", "unit": "Gy", "value": 9.0}]', "utf-8")  # fmt: skip
    found = CliRunner().invoke(app, ["dose", "compare", str(a), str(b)])
    assert found.exit_code == 0
    assert "0 of 1 metrics agree; 1 have no value" in found.stdout
    assert "not stated" in found.stdout
    a.write_text("x,y\n1,2\n", "utf-8")
    with pytest.raises(CtenrichError) as caught:
        read_metrics(a)
    assert caught.value.reason is Reason.DECODE_ERROR
    assert CliRunner().invoke(app, ["dose", "compare", str(tmp_path / "no.csv"), str(b)]).exit_code == 2


def test_the_tables_of_two_runs(tmp_path: Path) -> None:
    """Of several series or products, the names have them; a run of one is compared with any table."""

    def table(name: str, *rows: tuple[str, str, float]) -> Path:
        path = tmp_path / name
        head = "SeriesInstanceUID,product,organ,metric,unit,value\n"
        path.write_text(head + "".join(f"1.2.{n},{p},heart,Mean[Gy],Gy,{v}\n" for n, p, v in rows), "utf-8")
        return path

    a = table("a.csv", ("1", "expert", 5.0), ("1", "net", 7.0), ("2", "expert", 9.0))
    b = table("b.csv", ("1", "expert", 5.0), ("2", "expert", 19.0))
    found = compare_tables(read_metrics(a), read_metrics(b))
    assert [(one.structure, one.agrees) for one in found] == [
        ("heart, expert, 1.2.1", True),
        ("heart, expert, 1.2.2", False),
    ]
    (one,) = compare_tables(read_metrics(table("c.csv", ("1", "net", 5.0))), [row(5.1) | {"structure": "heart"}])
    assert one.agrees is True

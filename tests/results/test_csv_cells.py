"""Cells of CSV files: text that a spreadsheet would take for a formula is marked, numbers are left alone."""

from __future__ import annotations

import pytest

from ctenrich.cli.console import print_csv
from ctenrich.results.csv_cells import csv_cell


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\tx", "\r=x", "\n=x", "\uff1d1+1", "-", "+1_000", "-inf"]
)
def test_text_that_begins_a_formula(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["lung", "", "a=b", "-12.5", "+3", "-1e-3", -12.5, 3, 0.0, True])
def test_other_values_are_left_alone(value: object) -> None:
    assert csv_cell(value) is value


def test_missing_values_are_empty() -> None:
    assert csv_cell(None) == ""


def test_tables_printed_as_csv(capsys: pytest.CaptureFixture[str]) -> None:
    print_csv(["=header", "n"], [("@name", -5), (None, 1.5), ("a,b", "-3")])
    assert capsys.readouterr().out == "'=header,n\n'@name,-5\n,1.5\n\"a,b\",-3\n"

"""Test-retest statistics equal pingouin and published tables; pairs of series that cannot be used are refused."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.errors import UsageError
from ctenrich.evaluate.bland_altman import bland_altman_svg
from ctenrich.evaluate.repeatability import intraclass_correlations, measure_repeatability
from ctenrich.evaluate.retest import (
    FeatureRepeatability,
    SeriesPair,
    pairs_of_patients,
    read_pairs,
    run_repeatability,
    write_repeatability,
)
from ctenrich.reasons import Reason
from ctenrich.results.query import run_query
from ctenrich.workspace import Workspace
from tests.support.report_runs import NETWORK, make_run, uid_of

SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
"""Psychol Bull 1979;86:420-428, table 2: six targets, four judges."""
LARGE_METER = np.array(
    [[494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427],
     [490, 397, 512, 401, 470, 611, 415, 431, 638, 429, 420, 633, 275, 492, 165, 372, 421]], float
)  # fmt: skip
MINI_METER = np.array(
    [[512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451],
     [525, 415, 508, 444, 500, 625, 460, 390, 642, 432, 420, 605, 227, 467, 268, 370, 443]], float
)  # fmt: skip
"""Lancet 1986;327:307-310: peak flow of 17 subjects, two readings with each of two meters, l/min."""


def test_intraclass_correlations_equal_pingouin_and_the_published_table() -> None:
    found = intraclass_correlations(SHROUT_FLEISS)
    assert found.icc_1_1 == pytest.approx(0.1657417684054755, rel=1e-9), "pingouin 0.7.0"
    assert found.icc_2_1 == pytest.approx(0.28976377952755916, rel=1e-9)
    assert found.icc_3_1 == pytest.approx(0.7148407148407154, rel=1e-9)
    one, three = (found.icc_1_1_low, found.icc_1_1_high), (found.icc_3_1_low, found.icc_3_1_high)
    assert [round(v or 0, 2) for v in one + three] == [-0.13, 0.72, 0.34, 0.95], "pingouin rounds intervals"


def test_two_readings_of_a_meter_equal_pingouin_and_bland_and_altman() -> None:
    found = measure_repeatability(*LARGE_METER)
    assert found.intraclass is not None
    assert found.intraclass.icc_1_1 == pytest.approx(0.9831650200775257, rel=1e-9), "pingouin 0.7.0"
    assert found.intraclass.icc_2_1 == pytest.approx(0.9831640082594847, rel=1e-9)
    assert found.intraclass.icc_3_1 == pytest.approx(0.9830458419744516, rel=1e-9)
    assert round(found.within_sd or 0, 1) == 15.3, "Bland and Altman, Stat Methods Med Res 1999;8:135-160"
    mini = measure_repeatability(*MINI_METER)
    assert round(mini.within_sd or 0, 1) == 19.9
    between = measure_repeatability(MINI_METER[0], LARGE_METER[0])
    assert (round(between.bias or 0, 1), round(between.difference_sd or 0, 1)) == (-2.1, 38.8), "Lancet 1986"
    assert between.limit_low == pytest.approx(-2.1 - 1.96 * 38.8, abs=0.2)


def test_repeatability_coefficient_and_variation_by_hand() -> None:
    found = measure_repeatability(np.array([10.0, 20.0]), np.array([12.0, 16.0]))
    assert found.within_sd == pytest.approx(math.sqrt((4 + 16) / 4), rel=1e-12)
    assert found.rc == pytest.approx(1.96 * math.sqrt(2 * 5), rel=1e-12)
    assert found.within_cv == pytest.approx(math.sqrt((2 / 11**2 + 8 / 18**2) / 2), rel=1e-12)
    assert found.rc_low == pytest.approx(found.rc * math.sqrt(2 / 7.377758908227871), rel=1e-9), "chi2(2), 97.5 %"
    assert found.rc_high == pytest.approx(found.rc * math.sqrt(2 / 0.05063561596857975), rel=1e-9)
    assert (found.bias, found.mean, found.note) == (-1.0, 14.5, "")


@pytest.mark.parametrize(
    ("first", "second", "subjects", "note"),
    [
        ([1.0, math.nan, 3.0], [1.0, 2.0, math.nan], 1, "1 of 3 pairs have both values; two are needed"),
        ([], [], 0, "0 of 0 pairs have both values; two are needed"),
        ([5.1, 5.1], [5.1, 5.1], 2, "every value is the same: no intraclass correlation"),
        ([-1.0, 2.0], [-1.5, 2.5], 2, "some means are not positive: no coefficient of variation"),
        ([1.0, 2.0, math.inf], [1.5, 2.5, 1.0], 2, "1 of 3 pairs lack a value"),
    ],
)
def test_what_cannot_be_computed_is_missing_with_a_note(
    first: list[float], second: list[float], subjects: int, note: str
) -> None:
    found = measure_repeatability(np.array(first, float), np.array(second, float))
    assert (found.subjects, found.note) == (subjects, note)
    if subjects < 2:
        assert (found.rc, found.bias, found.intraclass) == (None, None, None)
    else:
        assert found.rc is not None
        assert (found.within_cv is None) == ("variation" in note)
        assert found.intraclass is not None
        assert (found.intraclass.icc_3_1 is None) == ("same" in note)


def test_a_constant_shift_lowers_agreement_and_not_consistency() -> None:
    first = np.array([1.0, 2.0, 4.0])
    found = intraclass_correlations(np.stack((first, first + 1), axis=1))
    assert found.icc_3_1 == pytest.approx(1.0)
    assert found.icc_3_1_low is None, "without a residual there is no interval"
    assert found.icc_2_1 == pytest.approx(0.8235294117647058, rel=1e-9), "(14/3) / (14/3 + 2 * 1.5 / 3)"
    equal = intraclass_correlations(np.full((3, 2), 0.1) + np.array([0.0, 0.3]))
    assert equal.icc_3_1 is None, "no subject differs from another: rounding must not decide"


# ---------------------------------------------------------------- of a run


def run_of_patients(root: Path, patients: Sequence[str]) -> Workspace:
    root.mkdir()
    columns = {"SeriesInstanceUID": [uid_of(n) for n in range(len(patients))], "PatientID": list(patients)}
    pq.write_table(pa.table(columns), root / "cohort.parquet")
    return make_run(root, len(patients))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A and B have two series each, C has one."""
    return run_of_patients(tmp_path_factory.mktemp("retest") / "run", ["A", "A", "B", "B", "C"])


PAIRS = (SeriesPair(first=uid_of(0), second=uid_of(1)), SeriesPair(first=uid_of(2), second=uid_of(3)))


@pytest.mark.long
def test_patients_with_two_series_are_pairs(run: Workspace) -> None:
    assert pairs_of_patients(run) == (PAIRS, 1)


@pytest.mark.long
def test_the_table_has_the_values_of_the_reports(run: Workspace) -> None:
    found = run_repeatability(run, PAIRS)
    write_repeatability(run, found)
    rows = run_query(run, "SELECT * FROM repeatability WHERE segment = 'aorta' ORDER BY feature").to_pylist()
    assert [(r["product"], r["kind"], r["feature"], r["pairs"]) for r in rows] == [
        (str(NETWORK), "shape_sr", "Sphericity", 2),
        (str(NETWORK), "shape_sr", "Volume (mesh)", 2),
    ]
    asked = run_query(run, "feature_over_cohort", {"quantity": "Sphericity", "segment": "aorta"}).to_pylist()
    values = {r["SeriesInstanceUID"]: r["value"] for r in asked}
    differences = [values[p.second] - values[p.first] for p in PAIRS]
    assert rows[0]["bias"] == pytest.approx(sum(differences) / 2, rel=1e-12)
    assert rows[0]["rc"] == pytest.approx(1.96 * math.sqrt(sum(d * d for d in differences) / 2), rel=1e-12)


@pytest.mark.long
@pytest.mark.parametrize(
    ("pairs", "reason", "part"),
    [
        (PAIRS[:1], Reason.BAD_PARAMETER, "1 of the two pairs"),
        ((PAIRS[0], SeriesPair(first=uid_of(2), second=uid_of(4))), Reason.BAD_PARAMETER, "two patients"),
        ((PAIRS[0], SeriesPair(first="1.2.3", second=uid_of(4))), Reason.NOT_FOUND, "no series 1.2.3 (pair 2)"),
    ],
)
def test_pairs_that_are_none_are_refused(
    run: Workspace, pairs: tuple[SeriesPair, ...], reason: Reason, part: str
) -> None:
    with pytest.raises(UsageError) as caught:
        run_repeatability(run, pairs)
    assert caught.value.reason is reason
    assert part in caught.value.message


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"first,second\n1.1,1.2\n1.2,1.3\n", "pairs.csv:3 has a series that is already in a pair"),
        (b"first,second\n1.1,1.1\n", "pairs.csv:2 has a series that is already in a pair"),
        (b"first,second\n1.1,\n", "pairs.csv:2 lacks a series"),
        (b"first,second\n1.1\n", "pairs.csv:2 lacks a series"),
        (b"a,b\n1.1,1.2\n", "not a table of pairs"),
        (b"first,second\n\xff,1\n", "not a CSV file in UTF-8"),
    ],
)
def test_files_of_pairs_that_cannot_be_read(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_pairs(path)
    assert caught.value.reason is Reason.BAD_PARAMETER
    assert part in caught.value.message


@pytest.mark.long
def test_the_command_prints_and_plots(run: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = SimpleNamespace(workspace=run, config=SimpleNamespace(products=()))
    monkeypatch.setattr(steps, "open_run", lambda _: opened)
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("first,second\n" + "".join(f"{p.first},{p.second}\n" for p in PAIRS))
    words = ["repeatability", "run", "--pairs", str(pairs), "--csv", "--feature", "Sphericity"]
    done = CliRunner().invoke(app, [*words, "--plots", str(tmp_path / "plots")], catch_exceptions=False)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("product,segment,feature,unit,pairs,mean,")
    assert [line.split(",")[1:3] for line in lines[1:]] == [["aorta", "Sphericity"], ["heart", "Sphericity"]]
    assert [p.name for p in sorted((tmp_path / "plots").iterdir())] == [
        "001-aorta-Sphericity.svg",
        "002-heart-Sphericity.svg",
    ]
    wrong = CliRunner().invoke(app, [*words[:4], "--feature", "Spherical"])
    assert wrong.exit_code == 2
    assert isinstance(wrong.exception, SystemExit)


@pytest.mark.long
def test_the_plot_shows_every_pair_and_the_limits(run: Workspace) -> None:
    one = next(f for f in run_repeatability(run, PAIRS) if f.measured.feature == "Sphericity")
    moved = FeatureRepeatability(
        measured=one.measured,
        first=MINI_METER[0],
        second=LARGE_METER[0],
        statistics=measure_repeatability(MINI_METER[0], LARGE_METER[0]),
    )
    svg = ElementTree.fromstring(bland_altman_svg(moved))
    space = "{http://www.w3.org/2000/svg}"
    circles = [(float(c.get("cx", "nan")), float(c.get("cy", "nan"))) for c in svg.iter(f"{space}circle")]
    assert len(circles) == 17
    order = np.argsort([(a + b) / 2 for a, b in zip(MINI_METER[0], LARGE_METER[0], strict=True)], kind="stable")
    assert [circles[n][0] for n in order] == sorted(c[0] for c in circles), "larger means are further right"
    assert np.argmin([c[1] for c in circles]) == np.argmax(LARGE_METER[0] - MINI_METER[0]), "larger is higher"
    text = [t.text for t in svg.iter(f"{space}text")]
    assert "mean -2.118" in text
    assert any(t is not None and t.startswith("+1.96 SD 73.8") for t in text)

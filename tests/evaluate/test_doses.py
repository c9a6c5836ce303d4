"""Doses of the products of a run: tables, factors, checks, refusals, and what is not calculated twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.dose.checks import StructureValues, check_cohort, check_treatment
from ctenrich.dose.plan import PlanFacts
from ctenrich.evaluate import doses as module
from ctenrich.evaluate.doses import SeriesDoses, doses_of_run, write_dose_tables
from ctenrich.records import FetchedFile, FetchedSeries, SortedSeries
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace
from tests.support import encode_cases as cases
from tests.support.doses import write_dose


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Workspace, SortedSeries]:
    """A series with the masks of an expert and of a network."""
    workspace = Workspace(tmp_path / "run")
    series, volume = cases.make_series(tmp_path / "ct")
    store = SeriesStore(workspace)
    uid = series.series_instance_uid
    store.save(series, uid)
    store.save(volume, uid)
    store.save(cases.make_masks(series, workspace), uid, cases.NNUNET)
    store.save(cases.make_expert_masks(series, workspace), uid, cases.EXPERT)
    return workspace, series


def give_dose(prepared: tuple[Workspace, SortedSeries], **attributes: Any) -> None:
    """Make an RT Dose of 1 Gy per mm along x the companion of the series."""
    workspace, series = prepared
    columns = np.arange(24)
    stored = np.broadcast_to((columns * 2000).astype(np.uint16), (16, 22, 24)).copy()
    attributes = {
        "FrameOfReferenceUID": series.frame_of_reference_uid,
        "ImagePositionPatient": [-122, -101, -313],
        "PixelSpacing": [2, 2],
    } | attributes
    path = write_dose(workspace.root.parent / "rd.dcm", stored, **attributes)
    sha = str(attributes.get("DoseGridScaling", "")) or "0" * 64
    companion = FetchedFile(str(path), path.as_uri(), path.stat().st_size, sha)
    fetched = FetchedSeries(series.series_instance_uid, series.study_instance_uid, (), (companion,))
    SeriesStore(workspace).save(fetched, series.series_instance_uid)


def found_of(prepared: tuple[Workspace, SortedSeries]) -> SeriesDoses:
    (found,) = doses_of_run(prepared[0], prepared[0].root / "none.parquet")
    return found


def value(found: SeriesDoses, product: str, organ: str, metric: str) -> float | None:
    (row,) = [r for r in found.metrics if (r["product"], r["structure"], r["metric"]) == (product, organ, metric)]
    return row["value"]  # type: ignore[no-any-return]


def test_every_product_has_its_metrics(prepared: tuple[Workspace, SortedSeries]) -> None:
    """The dose is that of the x coordinate: the mean is that at the middle of the heart."""
    give_dose(prepared)
    found = found_of(prepared)
    assert found.reason == ""
    products = {row["product"] for row in found.metrics}
    assert products == {"expert", str(cases.NNUNET)}
    # columns 6 to 21 of the expert's heart, 12 to 23 of the network's but for one voxel; 0.7 mm each from -120.25
    for product, middle in (("expert", 13.5), (str(cases.NNUNET), 17.5)):
        x = -120.25 + 0.7 * middle
        assert value(found, product, "heart", "Mean[Gy]") == pytest.approx(x + 122, abs=0.01)
    rows = [row for row in found.metrics if row["second_difference"] is not None and row["metric"] == "Mean[Gy]"]
    assert rows
    assert all(row["lower"] <= row["second_value"] <= row["upper"] for row in rows)
    assert not [row for row in found.metrics if row["structure"] in ("trachea", "spinal_cord")]


def test_tables_answer_a_question_in_sql(prepared: tuple[Workspace, SortedSeries]) -> None:
    give_dose(prepared)
    paths = write_dose_tables(prepared[0], [found_of(prepared)])
    assert sorted(paths) == ["dose_checks", "dose_metrics", "dvh_curves"]
    question = "select product, value from read_parquet(?) where organ = 'heart' and metric = 'Mean[Gy]' order by 1"
    rows = duckdb.execute(question, [str(paths["dose_metrics"])]).fetchall()
    assert [row[0] for row in rows] == ["expert", str(cases.NNUNET)]
    curve = duckdb.execute("select count(*) from read_parquet(?) where volume_share = 1", [str(paths["dvh_curves"])])
    assert curve.fetchall()[0][0] > 0


def test_nothing_is_calculated_twice(prepared: tuple[Workspace, SortedSeries], monkeypatch: pytest.MonkeyPatch) -> None:
    give_dose(prepared)
    first = found_of(prepared)

    def fail(*_: Any) -> None:
        raise AssertionError("calculated again")

    monkeypatch.setattr(module, "_rows", fail)
    assert found_of(prepared) == first
    give_dose(prepared, DoseGridScaling=0.002)
    with pytest.raises(AssertionError, match="calculated again"):
        found_of(prepared)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"FrameOfReferenceUID": "2.25.7"}, "DOSE_OTHER_FRAME"),
        ({"DoseUnits": "RELATIVE"}, "DOSE_UNITS"),
        ({"DoseType": "EFFECTIVE"}, "DOSE_TYPE"),
        ({"GridFrameOffsetVector": [1.0 + k for k in range(16)]}, "DOSE_OFFSETS"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3"}, "NOT_RT_DOSE"),
    ],
)
def test_a_series_without_a_usable_dose_has_a_reason(
    prepared: tuple[Workspace, SortedSeries], attributes: dict[str, Any], reason: str
) -> None:
    give_dose(prepared, **attributes)
    found = found_of(prepared)
    assert found.reason.startswith(f"{reason}: ")
    assert found.metrics == []
    table = write_dose_tables(prepared[0], [found])["dose_checks"]
    rows = duckdb.execute("select rule, severity, sentence from read_parquet(?)", [str(table)]).fetchall()
    assert rows == [("dose.none", "error", found.reason)]


def test_a_dose_that_ends_within_an_organ(prepared: tuple[Workspace, SortedSeries]) -> None:
    give_dose(prepared, ImagePositionPatient=[-110, -101, -313])
    found = found_of(prepared)
    assert value(found, "expert", "heart", "Mean[Gy]") is None
    (mean,) = [
        r for r in found.metrics if (r["product"], r["structure"], r["metric"]) == ("expert", "heart", "Mean[Gy]")
    ]
    assert mean["reason"] == "DOSE_INCOMPLETE"
    assert mean["coverage"] == pytest.approx(7 / 16)
    assert any(row["rule"] == "dose.coverage" and row["organ"] == "heart" for row in found.checks)


def values(name: str, **given: float) -> StructureValues:
    fields: dict[str, Any] = {"product": "expert", "name": name, "coverage": 1.0, "mean": None, "median": None} | given
    return StructureValues(**fields)


PLAN = PlanFacts(
    sop_instance_uid="2.25.1", label="Breast left", intent="CURATIVE", groups=(), fractions=None, prescription=None
)


@pytest.mark.parametrize(
    ("maximum", "prescription", "structures", "plans", "rules"),
    [
        (75.6, 70.0, [values("gtv_1", median=71.3)], [], []),
        (85.0, 70.0, [], [], ["dose.maximum"]),
        (69.0, 70.0, [], [], ["dose.maximum"]),
        (75.0, 70.0, [values("ptv_1", median=64.0)], [], ["dose.target_median"]),
        (75.0, 70.0, [values("ptv_1", median=75.5)], [], ["dose.target_median"]),
        (75.0, 70.0, [values("heart", median=20.0)], [], []),
        (32.9, 30.82, [], [replace(PLAN, label="")], ["dose.course"]),
        (75.0, 70.0, [values("heart", coverage=0.9)], [], ["dose.coverage"]),
        (75.0, 70.0, [values("lung_left", mean=3.0), values("lung_right", mean=20.0)], [PLAN], ["dose.side"]),
        (75.0, 70.0, [values("lung_left", mean=20.0), values("lung_right", mean=3.0)], [PLAN], []),
        (75.0, None, [values("ptv_1", median=10.0)], [], ["dose.prescription"]),
    ],
)
def test_checks_of_a_treatment(
    maximum: float,
    prescription: float | None,
    structures: list[StructureValues],
    plans: list[PlanFacts],
    rules: list[str],
) -> None:
    assert [check.rule for check in check_treatment(maximum, prescription, structures, plans)] == rules


def test_outliers_of_a_cohort() -> None:
    means = [5.0, 5.2, 4.9, 5.1, 5.0, 4.8, 5.3, 5.1, 4.9, 5.2, 40.0]
    rows = [
        {"SeriesInstanceUID": str(n), "product": "expert", "structure": "heart", "metric": "Mean[Gy]", "value": mean}
        for n, mean in enumerate(means)
    ]
    assert [(uid, check.organ) for uid, check in check_cohort(rows)] == [("10", "heart")]
    assert check_cohort(rows[5:]) == []


@pytest.mark.long
def test_lung1_002_from_its_folder_to_an_answer_in_sql(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """The reference was calculated by other code: SciPy on masks, and SimpleITK."""

    def ctenrich(*arguments: str) -> str:
        found = CliRunner().invoke(app, list(arguments))
        assert found.exit_code == 0, found.output
        return found.output

    catalog, treatments, out = (str(tmp_path / name) for name in ("cat.duckdb", "treatments.parquet", "run"))
    ctenrich("index", str(real_data("LUNG1-002-RT")), "--catalog", catalog)
    ctenrich("treatments", "make", f"folder:{catalog}", "--out", treatments)
    printed = ctenrich("run", treatments, "--out", out, "--segmenter", "expert", "--dose")
    assert "1 series with doses, 0 without" in printed
    file = str(tmp_path / "run" / "tables" / "dose_metrics.parquet")
    rows = duckdb.execute("select organ, value from read_parquet(?) where metric = 'Mean[Gy]'", [file]).fetchall()
    found = dict(rows)
    assert found["heart"] == pytest.approx(23.640, abs=0.01)
    assert found["lung_left"] == pytest.approx(5.598, abs=0.01)
    assert found["lung_right"] == pytest.approx(34.778, abs=0.01)
    text = "select distinct prescription_gy, prescription_source from read_parquet(?)"
    assert duckdb.execute(text, [file]).fetchall() == [(70.0, "beam_doses")]

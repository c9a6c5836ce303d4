"""Paired comparisons: the published rows give their medians and findings; tests and corrections equal statsmodels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctenrich.errors import UsageError
from ctenrich.evaluate import statistics
from ctenrich.evaluate.published import read_published
from ctenrich.evaluate.statistics import MetricValue, analyse_variance, compare_pairs, holm, summarise_values
from ctenrich.reasons import Reason

FULL, LOW, FLAT = (f"{name}-tta_nnU-Net_Segmentation" for name in ("3d_fullres", "3d_lowres", "2d"))


def make_values(columns: dict[str, list[float]], metric: str = "dice") -> list[MetricValue]:
    return [
        MetricValue(series=f"1.{n}", segment="heart", product=product, metric=metric, value=value)
        for product, values in columns.items()
        for n, value in enumerate(values)
    ]


@pytest.fixture(scope="module")
def rows(published: Path) -> tuple[MetricValue, ...]:
    return read_published(published / "segmentation_metrics_expert_vs_ai.csv")


@pytest.mark.data
def test_medians_of_the_published_rows(rows: tuple[MetricValue, ...]) -> None:
    found = {(s.segment, s.product, s.metric): s for s in summarise_values(rows)}
    medians = {key: round(s.median, 4) for key, s in found.items() if key[2] != "hausdorff"}
    assert medians == {
        ("heart", FULL, "dice"): 0.8882,
        ("heart", FLAT, "dice"): 0.8922,
        ("heart", LOW, "dice"): 0.8882,
        ("heart", FULL, "hausdorff_95_voxels"): 3.6293,
        ("heart", FLAT, "hausdorff_95_voxels"): 3.4602,
        ("heart", LOW, "hausdorff_95_voxels"): 3.8346,
        ("esophagus", FULL, "dice"): 0.7822,
        ("esophagus", FLAT, "dice"): 0.7675,
        ("esophagus", LOW, "dice"): 0.757,
        ("esophagus", FULL, "hausdorff_95_voxels"): 4.0123,
        ("esophagus", FLAT, "hausdorff_95_voxels"): 4.4655,
        ("esophagus", LOW, "hausdorff_95_voxels"): 4.3663,
    }
    assert {s.series for (organ, *_), s in found.items() if organ == "heart"} == {120}
    assert {s.series for (organ, *_), s in found.items() if organ == "esophagus"} == {345}


@pytest.mark.data
def test_findings_of_the_published_rows(rows: tuple[MetricValue, ...]) -> None:
    """The esophagus is higher in 3d_fullres; the heart differs by less than 0.003, significant or not."""
    found = {}
    for d in compare_pairs([r for r in rows if r.metric == "dice"]):
        sign = 1 if d.first == FULL else -1
        found[d.segment, frozenset((d.first, d.second))] = (d, sign * d.median_difference)
    for other, difference in ((FLAT, 0.012), (LOW, 0.019)):
        one, median = found["esophagus", frozenset((FULL, other))]
        assert round(median, 3) == difference
        assert (one.finding, one.series) == ("higher", 345)
    hearts = [one for (organ, _), one in found.items() if organ == "heart"]
    assert all(abs(median) < 0.003 for _, median in hearts)
    heart, _ = found["heart", frozenset((FULL, LOW))]
    assert heart.p == pytest.approx(1.7e-4, rel=0.01), "scipy's wilcoxon, as the paper's test"
    assert heart.finding == "small"
    assert "by less than the margin of 0.01" in heart.sentence
    assert "p = 0.00017" in heart.sentence
    same, _ = found["heart", frozenset((FULL, FLAT))]
    assert same.finding == "no difference shown"
    assert "this does not show that they are equal" in same.sentence


@pytest.mark.data
def test_analysis_of_variance_equals_statsmodels(rows: tuple[MetricValue, ...]) -> None:
    """AnovaRM of statsmodels 0.15 on the published rows."""
    found = {(a.segment, a.metric): a for a in analyse_variance(rows)}
    heart, esophagus = found["heart", "dice"], found["esophagus", "dice"]
    assert (heart.f, heart.df_products, heart.df_error, heart.p) == pytest.approx(
        (1.4295126129560203, 2, 238, 0.24147372755130034)
    )
    assert (esophagus.f, esophagus.df_error) == pytest.approx((58.97899879000205, 688))
    assert esophagus.p == pytest.approx(2.2853566993805484e-24)
    distance = found["esophagus", "hausdorff"]
    assert (distance.f, distance.p) == pytest.approx((3.408081466129496, 0.033664552392882435))
    assert 0.5 < heart.epsilon <= 1
    assert heart.p_corrected > esophagus.p_corrected


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02]), "statsmodels' multipletests"
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_effect_wins_and_interval() -> None:
    rng = np.random.default_rng(1)
    base = rng.uniform(0.8, 0.9, 40)
    (d,) = compare_pairs(make_values({"a": list(base + 0.05), "b": list(base)}))
    assert (d.first_better, d.second_better, d.ties, d.effect) == (40, 0, 0, 1.0)
    assert (d.low, d.median_difference, d.high) == pytest.approx((0.05, 0.05, 0.05))
    assert (d.finding, "a is higher than b" in d.sentence, "better" in d.sentence) == ("higher", True, True)
    (d,) = compare_pairs(make_values({"a": list(base * 20 + 2), "b": list(base * 20)}, "hausdorff"))
    assert (d.finding, d.first_better, "worse" in d.sentence) == ("higher", 0, True)
    noise = rng.normal(0, 1e-3, 40)
    (d,) = compare_pairs(make_values({"a": list(base + noise), "b": list(base)}))
    assert d.low is not None
    assert d.high is not None
    assert d.low < d.median_difference < d.high
    assert d.finding == "no difference shown"
    assert "interval of the median lies within the margin" in d.sentence


def test_few_series_and_equal_products() -> None:
    (d,) = compare_pairs(make_values({"a": [0.9], "b": [0.8]}))
    assert (d.finding, d.series, d.p, d.low) == ("not tested", 1, None, None)
    assert "not tested in one series" in d.sentence
    (d,) = compare_pairs(make_values({"a": [0.9] * 20, "b": [0.9] * 20}))
    assert (d.finding, d.ties, d.effect) == ("not tested", 20, None)
    assert compare_pairs(make_values({"a": [0.9]})) == ()
    assert analyse_variance(make_values({"a": [0.9] * 9, "b": [0.9] * 9, "c": [0.9] * 9})) == ()


def test_strata_are_compared_apart() -> None:
    values = make_values({"a": [0.9] * 8 + [0.5] * 8, "b": [0.7] * 8 + [0.6] * 8})
    strata = {f"1.{n}": "F" if n < 8 else "M" for n in range(15)}
    found = {d.stratum: d for d in compare_pairs(values, strata=strata)}
    assert {name: (d.finding, d.series) for name, d in found.items()} == {
        "F": ("higher", 8),
        "M": ("lower", 7),
        "not stated": ("not tested", 1),
    }
    assert "heart, dice (F): a is higher" in found["F"].sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "is not a table of metrics"),
        ("SeriesInstanceUID,structure_name,model\n1,Heart,a\n", "is not a table of metrics"),
        ("SeriesInstanceUID,structure_name,model,dice_score\n1,Heart,a,high\n", "t.csv:2: dice_score is not a number"),
        ("SeriesInstanceUID,structure_name,model,dice\n1,Heart,a,1\n1,heart,a,1\n", "t.csv:3: a second dice of heart"),
        ("\ufffe", "is not"),
    ],
)
def test_another_kind_of_table(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode("utf-16-be") if text == "\ufffe" else text.encode())
    with pytest.raises(UsageError, match=words) as caught:
        read_published(path)
    assert caught.value.reason is Reason.BAD_PARAMETER


def test_names_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    head = "series_instance_uid,structure_name,model,dice_score,hausdorff_distance_95,hausdorff_distance_95_voxels"
    path.write_text(f"{head}\n1.2,Herz,a,,4.0,1.0\n")
    found = {v.metric: v for v in read_published(path)}
    assert {name: v.value for name, v in found.items()} == {"hausdorff_95_max": 4.0, "hausdorff_95_voxels": 1.0}
    assert found["hausdorff_95_max"].segment == "roi:herz"


@pytest.mark.parametrize("count", [500, 501])
def test_places_of_medians_are_drawn_as_values_are(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Percentiles of 2,000 medians differ by what another seed changes: about a tenth of the interval's half width."""
    difference = np.random.default_rng(3).normal(0.2, 1, count)
    drawn = [statistics._bootstrap(difference, seed) for seed in range(5)]
    monkeypatch.setattr(statistics, "_DRAWN_SINGLY", 10)
    by_place = [statistics._bootstrap(difference, seed) for seed in range(5)]
    assert by_place != drawn
    assert np.allclose(np.mean(by_place, axis=0), np.mean(drawn, axis=0), atol=0.01)
    assert by_place[0] == statistics._bootstrap(difference, 0), "repeats"


def test_medians_of_many_equal_differences() -> None:
    assert statistics._bootstrap(np.full(20_000, 0.5), 0) == (0.5, 0.5)

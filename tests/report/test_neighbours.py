"""Series with the nearest feature vectors: against another computation, on pages, and in chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ctenrich.features.vectors import floats_sha256
from ctenrich.records import FeatureVector, FeatureVectors, ModelInfo, ModelVectors, Product
from ctenrich.report import build_report, neighbours
from ctenrich.report.neighbours import NEIGHBOURS, neighbours_of
from ctenrich.results.schema import arrow_schema
from ctenrich.results.tables import build_tables
from ctenrich.workspace import Workspace, save_array, save_record
from tests.support.browser import Watched, chromium
from tests.support.report_runs import NETWORK, make_run, uid_of

NUMBER = 8
LENGTH = 16


def table_of(rows: list[dict[str, Any]], patients: dict[str, str | None]) -> duckdb.DuckDBPyConnection:
    import pyarrow as pa

    schema = arrow_schema("deep_features")
    full = [{name: row.get(name) for name in schema.names} for row in rows]
    db = duckdb.connect()
    db.register("deep_features", pa.Table.from_pylist(full, schema=schema))
    db.execute("CREATE TABLE series (SeriesInstanceUID TEXT, PatientID TEXT)")
    db.executemany("INSERT INTO series VALUES (?, ?)", [[*item] for item in patients.items()])
    return db


def row_of(uid: str, vector: NDArray[Any], **more: Any) -> dict[str, Any]:
    known = {"SeriesInstanceUID": uid, "product": "p", "features": "deep:a", "model_sha256": "m", "length": len(vector)}
    return {**known, "vector": vector.tolist(), "norm": float(np.linalg.norm(vector)), **more}


def test_they_are_those_of_the_cosine_of_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_AT_ONCE", 7)
    vectors = np.random.default_rng(0).normal(size=(30, LENGTH))
    uids = [f"1.{n:02d}" for n in range(30)]
    patients: dict[str, str | None] = {uid: f"P{n // 2}" for n, uid in enumerate(uids)}
    with table_of([row_of(uid, vector) for uid, vector in zip(uids, vectors, strict=True)], patients) as db:
        found = neighbours_of(db)
    cosines = 1 - cdist(vectors, vectors, "cosine")
    for n, uid in enumerate(uids):
        ((row),) = found[uid]
        best = [k for k in np.argsort(-cosines[n]) if k != n][:NEIGHBOURS]
        assert [one["uid"] for one in row["similar"]] == [uids[k] for k in best]
        assert [one["similarity"] for one in row["similar"]] == [f"{cosines[n, k]:.4f}" for k in best]
        assert [one["same"] for one in row["similar"]] == [k // 2 == n // 2 for k in best]
        assert (row["structure"], row["of"]) == ("whole volume", 29)


def test_only_vectors_of_one_kind_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one model, structure and product; vectors of whole volumes are those of the series."""
    one, two = np.array([1.0, 0.0]), np.array([0.9, 0.1])
    rows = [
        row_of("1", one),
        row_of("1", one, product="q"),
        row_of("2", two),
        row_of("3", one, model_sha256="other"),
        row_of("4", np.zeros(2)),
        row_of("1", one, segment="heart"),
        row_of("2", two, segment="heart", product="q"),
    ]
    with table_of(rows, {"1": None, "2": None}) as db:
        found = neighbours_of(db)
        assert {uid: [[n["uid"] for n in row["similar"]] for row in part] for uid, part in found.items()} == {
            "1": [["2"]],
            "2": [["1"]],
        }
        assert not found["1"][0]["similar"][0]["same"], "two patients who are not known are not the same"
        monkeypatch.setattr(neighbours, "MOST_SERIES", 1)
        assert neighbours_of(db) == {}


def save_vectors(workspace: Workspace, number: int, values: NDArray[np.float32]) -> None:
    """Vectors of the whole volume and of the heart."""
    uid = uid_of(number)
    folder = workspace.product_dir(uid, NETWORK)
    save_array(folder / "features" / "a.npy", values)
    vectors = tuple(
        FeatureVector(
            number=segment, name=name, norm=float(np.linalg.norm(one)), outside=0.0, input_sha256="ab" * 32,
            sha256=floats_sha256(one),
        )
        for (segment, name), one in zip(((None, ""), (1, "heart")), values, strict=True)
    )  # fmt: skip
    model = ModelVectors(
        spec="deep:a", model=ModelInfo("a", "1", "cd" * 32), length=LENGTH, crop="volume",
        array_path=workspace.relative(uid, folder / "features" / "a.npy"), vectors=vectors,
    )  # fmt: skip
    product: Product = NETWORK
    record = FeatureVectors(product=product, series_instance_uid=uid, volume_sha256="ef" * 32, models=(model,))
    save_record(folder / "features.json", record)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = make_run(tmp_path_factory.mktemp("neighbours") / "run", NUMBER, pictures=1)
    values = np.random.default_rng(5).random((NUMBER, 2, LENGTH)).astype(np.float32)
    values[1] = values[0] * 2
    for number in range(NUMBER):
        save_vectors(workspace, number, values[number])
    build_tables(workspace)
    build_report(workspace)
    return workspace


@pytest.fixture(scope="module")
def browser() -> Iterator[Watched]:
    with chromium(1400, 1000) as seen:
        yield seen


@pytest.mark.long
@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_lists_them_with_links(width: int, browser: Watched, run: Workspace) -> None:
    page = browser.page
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto((run.report / "series" / f"{uid_of(0)}.html").as_uri())
    part = page.locator("section.like")
    assert part.locator("h2").inner_text() == "Series like this one"
    assert part.locator("tbody").count() == 2
    assert part.locator("tbody th").all_inner_texts() == [
        f"whole volume deep:a; {NUMBER - 1} others",
        f"heart deep:a, {NETWORK}; {NUMBER - 1} others",
    ]
    assert part.locator("tbody tr").count() == 2 * NEIGHBOURS
    first = part.locator("tbody tr").first
    assert first.locator("td").last.inner_text() == "1.0000"
    assert part.locator("thead th[scope=col]").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth") == width, "nothing to scroll sideways"
    first.locator("a").click()
    page.wait_for_url(f"**/{uid_of(1)}.html")
    assert browser.errors == []
    assert browser.outside() == []


def test_pages_follow_the_vectors_of_other_series(run: Workspace) -> None:
    """A page is built again when the neighbours change, and a run without vectors has no such part."""
    path = run.report / "series" / f"{uid_of(0)}.html"
    before = path.read_text("utf-8")
    save_vectors(run, 2, np.random.default_rng(9).random((2, LENGTH)).astype(np.float32) - 3)
    build_tables(run)
    build_report(run)
    assert path.read_text("utf-8") != before
    for number in range(NUMBER):
        (run.product_dir(uid_of(number), NETWORK) / "features.json").unlink()
    build_tables(run)
    build_report(run)
    assert "Series like this one" not in path.read_text("utf-8")

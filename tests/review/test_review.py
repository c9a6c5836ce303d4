"""Reviews: read with validation, kept with the run, counted over reviewers, and used by export and publish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.support.report_runs import NETWORK, SCORER, make_run, uid_of
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.errors import UsageError
from ctenrich.publish.content import gather
from ctenrich.publish.export import export_run
from ctenrich.publish.options import PublishOptions
from ctenrich.reasons import Reason
from ctenrich.records import State
from ctenrich.results.query import run_query
from ctenrich.review.reading import read_review_file
from ctenrich.review.records import ReviewState
from ctenrich.review.store import ReviewStore, objects_version, run_identifier
from ctenrich.review.tables import write_reviews
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace

UID = uid_of(0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_run(tmp_path_factory.mktemp("reviewed") / "run", 2, pictures=0)


@pytest.fixture
def run(made: Workspace) -> Workspace:
    """The run without a review."""
    (made.root / "reviews.jsonl").unlink(missing_ok=True)
    (made.tables / "reviews.parquet").unlink(missing_ok=True)
    return made


def row(run: Workspace, decision: str = "accept", **more: str) -> dict[str, Any]:
    version = objects_version(SeriesStore(run), UID, NETWORK)
    found = {"series": UID, "product": str(NETWORK), "objects": version, "decision": decision, "reviewer": "Ada"}
    return {**found, "time": "2026-01-31T12:00:00Z", "reason": "", "comment": "", **more}


def save(path: Path, run: Workspace, *rows: dict[str, Any], name: str = "", **more: Any) -> Path:
    content = {"format": "ctenrich-review", "version": 1, "run": name or run_identifier(run), "reviews": rows, **more}
    path.write_text(json.dumps(content), "utf-8")
    return path


def test_a_review_is_kept_once_and_can_be_queried(run: Workspace, tmp_path: Path) -> None:
    path = save(
        tmp_path / "review.json", run, row(run, "reject", reason="island", comment="in the spinal canal; تعليق")
    )
    store = ReviewStore(run)
    assert store.import_file(path).added == 1
    again = store.import_file(path)
    assert (again.added, again.repeated) == (0, 1)
    write_reviews(run)
    found = run_query(run, "SELECT state, decision, reason, comment, reviewer, current, last FROM reviews").to_pylist()
    assert found == [
        {
            "state": "rejected", "decision": "reject", "reason": "island", "comment": "in the spinal canal; تعليق",
            "reviewer": "Ada", "current": True, "last": True,
        }
    ]  # fmt: skip


def test_the_last_decision_of_a_reviewer_counts_and_none_is_removed(run: Workspace, tmp_path: Path) -> None:
    store = ReviewStore(run)
    later = row(run, "accept", time="2026-02-01T08:00:00Z")
    store.import_file(save(tmp_path / "a.json", run, later))
    store.import_file(save(tmp_path / "b.json", run, row(run, "reject"), row(run, "comment", comment="see slice 12")))
    assert store.states()[UID, str(NETWORK)].state is ReviewState.ACCEPTED
    assert store.accepted() == {(UID, str(NETWORK))}
    assert len(store.load()) == 3
    path = write_reviews(run)
    assert path is not None
    assert pq.read_table(path, columns=["last"])["last"].to_pylist() == [True, False, True]


def test_two_reviewers_who_disagree(run: Workspace, tmp_path: Path) -> None:
    store = ReviewStore(run)
    store.import_file(save(tmp_path / "a.json", run, row(run), row(run, "reject", reviewer="Grace")))
    assert store.states()[UID, str(NETWORK)].state is ReviewState.DISPUTED
    assert store.accepted() == frozenset()


def test_reviews_that_do_not_fit_are_refused_one_by_one(run: Workspace, tmp_path: Path) -> None:
    rows = (
        row(run, objects="0123456789abcdef"),
        row(run, series=uid_of(99)),
        row(run, product="nnunet:other"),
        row(run),
    )
    found = ReviewStore(run).import_file(save(tmp_path / "a.json", run, *rows))
    assert found.added == 1
    assert [item.reason for item in found.refused] == [Reason.OUTDATED_REVIEW, Reason.NOT_FOUND, Reason.NOT_FOUND]
    assert "made again since the review" in found.refused[0].message


def test_a_review_of_objects_that_were_made_again_no_longer_counts(
    run: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ReviewStore(run).import_file(save(tmp_path / "a.json", run, row(run)))
    monkeypatch.setattr("ctenrich.review.store.objects_version", lambda *_: "another")
    store = ReviewStore(run)
    assert store.states()[UID, str(NETWORK)].state is ReviewState.OUTDATED
    assert store.accepted() == frozenset()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "something"}, "not a review file"),
        ({"version": 2}, "version 2 of the format"),
        ({"reviews": {}}, "no list of reviews"),
        ({"reviews": ["x"]}, "review 1 of bad.json is not an object"),
    ],
)
def test_a_file_of_another_form(run: Workspace, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_review_file(save(tmp_path / "bad.json", run, **change))
    assert caught.value.reason is Reason.BAD_REVIEW


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decision": "maybe"}, "unknown decision"),
        ({"reviewer": " "}, "states no reviewer"),
        ({"time": "yesterday"}, "not a time in UTC"),
        ({"time": "2026-02-31T00:00:00Z"}, "not a time in UTC"),
        ({"series": "../../etc"}, "not a DICOM UID"),
        ({"comment": "x" * 10_001}, "at most 10000 characters"),
    ],
)
def test_a_review_with_a_wrong_value(run: Workspace, tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_review_file(save(tmp_path / "bad.json", run, row(run, **change)))
    assert caught.value.reason is Reason.BAD_REVIEW


def test_broken_json_and_another_run(run: Workspace, tmp_path: Path) -> None:
    good = save(tmp_path / "a.json", run, row(run))
    (tmp_path / "cut.json").write_bytes(good.read_bytes()[:-9])
    with pytest.raises(UsageError, match="not JSON, or was cut short"):
        ReviewStore(run).import_file(tmp_path / "cut.json")
    with pytest.raises(UsageError, match="is about the run 'another'") as caught:
        ReviewStore(run).import_file(save(tmp_path / "b.json", run, row(run), name="another"))
    assert caught.value.reason is Reason.OTHER_RUN
    assert ReviewStore(run).load() == ()


def test_a_line_that_was_cut_is_replaced_and_a_damaged_one_is_an_error(run: Workspace, tmp_path: Path) -> None:
    store = ReviewStore(run)
    store.import_file(save(tmp_path / "a.json", run, row(run)))
    with store.path.open("ab") as handle:
        handle.write(b'{"series": "1.2')
    assert len(store.load()) == 1
    store.import_file(save(tmp_path / "b.json", run, row(run, reviewer="Grace")))
    assert [review.reviewer for review in store.load()] == ["Ada", "Grace"]
    store.path.write_bytes(b"{}x\n" + store.path.read_bytes())
    with pytest.raises(UsageError, match=r"line 1 of reviews\.jsonl is damaged"):
        store.load()


def test_only_accepted_products_are_exported_and_published(run: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        gather(run, PublishOptions(accepted_only=True))
    assert caught.value.reason is Reason.NOT_ACCEPTED
    ReviewStore(run).import_file(save(tmp_path / "a.json", run, row(run)))
    assert {file.path.parents[1] for file in gather(run, PublishOptions(accepted_only=True)).files} == {
        run.product_dir(UID, NETWORK)
    }
    found = export_run(run, "csv", tmp_path / "out", accepted_only=True)
    done = [item.path for item in found.objects if item.state is State.DONE]
    assert done == [run.product_dir(UID, NETWORK) / "objects" / "shape_sr.dcm"]
    left = [item for item in found.objects if item.state is State.SKIPPED]
    assert run.product_dir(UID, SCORER) / "objects" / "regions_sr.dcm" in [item.path for item in left]
    assert {item.reason for item in left} == {Reason.NOT_ACCEPTED}


def test_the_commands(run: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Opened:
        workspace = run

    monkeypatch.setattr("ctenrich.steps.open_run", lambda _: Opened)
    path = save(tmp_path / "a.json", run, row(run), row(run, reviewer="Grace", objects="old"))
    done = CliRunner().invoke(app, ["review", "import", str(run.root), str(path)])
    assert done.exit_code == 1
    assert "a.json: 1 review added, 0 already there, 1 refused" in done.output
    assert "OUTDATED_REVIEW" in done.output
    shown = CliRunner().invoke(app, ["review", "list", str(run.root)])
    assert shown.exit_code == 0
    assert "products: 1 accepted" in shown.output
    wrong = CliRunner().invoke(app, ["review", "list", str(run.root), "--state", "good"])
    assert wrong.exit_code == 2
    missing = CliRunner().invoke(app, ["review", "import", str(run.root)])
    assert missing.exit_code == 2
    assert "review.json" in missing.output

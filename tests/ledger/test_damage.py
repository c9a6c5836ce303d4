"""A damaged ledger: what it is, what to do, and that a run heals it with the old file kept."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.cohorts import make_cohort, result_hashes
from typer.testing import CliRunner, Result

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.errors import InputError, UsageError
from ctenrich.ledger.database import check_database_path, set_aside_if_damaged
from ctenrich.ledger.ledger import Ledger
from ctenrich.ledger.reader import LedgerReader
from ctenrich.ledger.rows import StageTiming
from ctenrich.reasons import Reason

PAGE = 4096


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    run = steps.start(make_cohort(folder, 2), folder / "run", segmenters=["expert"])
    assert steps.run_all(run).exit_code == 0
    return run.root


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def overwrite(path: Path, page: int) -> None:
    with path.open("rb+") as file:
        file.seek(page * PAGE)
        file.write(b"\xa5" * PAGE)


def pages(path: Path) -> int:
    return path.stat().st_size // PAGE


def roots(path: Path) -> dict[str, int]:
    """Name -> number of the first page, from 0."""
    with closing(sqlite3.connect(path)) as db:
        return {name: page - 1 for name, page in db.execute("SELECT name, rootpage FROM sqlite_master")}


@pytest.mark.parametrize("page", [0, 1, 3, 4, 7, 11])
def test_whatever_page_is_damaged_the_next_run_heals_it(run: Path, finished: Path, page: int) -> None:
    ledger = run / "ledger.sqlite"
    if page >= pages(ledger):
        pytest.skip("the ledger is smaller")
    overwrite(ledger, page)
    for command in ("status", "report", "validate"):
        before = ledger.read_bytes()
        result = call(command, run)
        if command != "validate":
            assert ledger.read_bytes() == before
        if result.exit_code:
            assert "DAMAGED_LEDGER" in result.output
            assert "ledger.sqlite.broken-N" in result.output
    shutil.copy(finished / "ledger.sqlite", ledger)
    overwrite(ledger, page)
    result = call("run", run / "cohort.parquet", "--out", run, "--segmenter", "expert", "--executor", "serial")
    assert result.exit_code == 0, result.output
    assert "0 stages ran" in result.output
    assert result_hashes(run) == result_hashes(finished)
    with LedgerReader(ledger) as reader:
        assert {o.state.value for o in reader.outcomes()} == {"done"}
        assert len(reader.outcomes()) == len(reader.plan()) == 4
    assert (run / "ledger.sqlite.broken-1").is_file()


def test_what_can_still_be_read_is_kept(run: Path) -> None:
    ledger = run / "ledger.sqlite"
    with LedgerReader(ledger) as reader:
        timings, issues, runs = reader.timings(), reader.issues(), reader.runs()
    overwrite(ledger, roots(ledger)["outcomes"])
    assert set_aside_if_damaged(ledger) == run / "ledger.sqlite.broken-1"
    with LedgerReader(ledger) as reader:
        assert (reader.timings(), reader.issues(), reader.runs()) == (timings, issues, runs)
        assert reader.outcomes() == []
    assert set_aside_if_damaged(ledger) is None, "the new one is whole"
    overwrite(ledger, roots(ledger)["timings"])
    assert set_aside_if_damaged(ledger) == run / "ledger.sqlite.broken-2"
    with LedgerReader(ledger) as reader:
        assert (reader.timings(), reader.issues()) == ([], issues)


def test_a_whole_ledger_and_none_are_left_alone(run: Path, tmp_path: Path) -> None:
    assert set_aside_if_damaged(run / "ledger.sqlite") is None
    assert set_aside_if_damaged(tmp_path / "none.sqlite") is None
    newer = tmp_path / "newer.sqlite"
    with closing(sqlite3.connect(newer)) as db, db:
        db.execute("PRAGMA user_version = 99")
    assert set_aside_if_damaged(newer) is None, "another version is no damage"


def test_a_state_that_no_version_writes_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.set_plan([("1.1", "")])
        with ledger._database.transaction() as db:
            db.execute("INSERT INTO outcomes VALUES ('1.1', '', 'dnoe', 'sort', '', '', 0.0, 0)")
        with pytest.raises(InputError, match="dnoe") as caught:
            ledger.outcomes()
    assert caught.value.reason is Reason.DAMAGED_LEDGER


def test_a_folder_whose_path_is_too_long_for_sqlite_is_refused_before_work(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path, 1)
    deep = tmp_path
    while len(str(deep)) < 420:
        deep = deep / ("d" * 40)
    check_database_path(deep / "ledger.sqlite")
    run = steps.start(cohort, deep / "run", segmenters=["expert"])
    assert steps.run_all(run).exit_code == 0
    for name in (deep / ("e" * 100), tmp_path / ("f" * 300)):
        with pytest.raises(UsageError, match="BAD_RUN"):
            steps.start(cohort, name, segmenters=["expert"])
        assert call("run", cohort, "--out", name, "--segmenter", "expert").exit_code == 2


@pytest.mark.parametrize(
    "name",
    [
        "run #1%20a",
        pytest.param("Läufe [1] *?mode=ro", marks=pytest.mark.long),
        pytest.param("a=b;y'\"&", marks=pytest.mark.long),
    ],
)
def test_any_name_of_a_folder_works_from_run_to_report(finished: Path, tmp_path: Path, name: str) -> None:
    run = Path(shutil.copytree(finished, tmp_path / name))
    assert call("run", run / "cohort.parquet", "--out", run, "--segmenter", "expert").exit_code == 0
    for command in (["status", run], ["validate", run], ["report", run], ["verify", run]):
        assert call(*command).exit_code == 0, command
    result = call("query", run, "SELECT * FROM outcomes", "--csv")
    assert result.exit_code == 0, result.output
    assert "a" not in result.output.splitlines()[0].split(","), "the folder is no column"
    assert [p.name for p in tmp_path.iterdir()] == [name], "no stray file"


def test_timings_after_healing_go_on(run: Path) -> None:
    ledger = run / "ledger.sqlite"
    overwrite(ledger, roots(ledger)["plan"])
    set_aside_if_damaged(ledger)
    with Ledger(ledger) as opened:
        before = max(t.attempt for t in opened.timings())
        one = opened.timings()[0]
        opened.add_timings(
            StageTiming(
                series_instance_uid=one.series_instance_uid,
                product=one.product,
                stage=one.stage,
                seconds=1.0,
                cpu_seconds=1.0,
                peak_memory=1,
            )
        )
        assert max(t.attempt for t in opened.timings()) == before + 1


def test_text_that_is_not_utf8_is_damage(run: Path) -> None:
    path = run / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE outcomes SET message = CAST(x'ff80' AS TEXT)")
        db.commit()
    with pytest.raises(InputError) as caught, LedgerReader(path) as ledger:
        ledger.outcomes()
    assert caught.value.reason is Reason.DAMAGED_LEDGER
    assert call("report", run).exit_code != 0
    assert set_aside_if_damaged(path) == run / "ledger.sqlite.broken-1"
    with LedgerReader(path) as ledger:
        assert ledger.outcomes() == []


def test_a_schema_of_other_columns_is_damage(run: Path) -> None:
    """A changed byte in the page of the schema: SQLite's integrity check accepts it."""
    ledger = run / "ledger.sqlite"
    content = ledger.read_bytes()
    assert content.count(b"position INTEGER") == 1
    ledger.write_bytes(content.replace(b"position INTEGER", b"positiox INTEGER"))
    with LedgerReader(ledger) as reader, pytest.raises(InputError) as caught:
        reader.plan()
    assert caught.value.reason is Reason.DAMAGED_LEDGER
    assert set_aside_if_damaged(ledger) == run / "ledger.sqlite.broken-1"
    with LedgerReader(ledger) as reader:
        assert reader.plan() == []


def test_a_start_of_a_runner_with_other_columns_is_damage(run: Path) -> None:
    ledger = run / "ledger.sqlite"
    with closing(sqlite3.connect(ledger)) as db:
        db.execute("ALTER TABLE runs RENAME COLUMN finished TO finisled")
        db.commit()
    with LedgerReader(ledger) as reader, pytest.raises(InputError) as caught:
        reader.runs()
    assert caught.value.reason is Reason.DAMAGED_LEDGER

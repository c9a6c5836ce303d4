"""Several series on S3 come by one manifest of s5cmd; each of them is still proven on its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow.parquet as pq
import pytest
from tests.conftest import need_package
from tests.support.cohorts import make_cohort, result_hashes
from tests.support.storage_servers import s3_bucket, s3_put, s3_server

from ctenrich import steps
from ctenrich.records import Cohort, Instance, SeriesEntry, State
from ctenrich.runner.executors import ExecutorName
from ctenrich.runner.run import Run
from ctenrich.select.cohort_file import cohort_table, read_cohort
from ctenrich.select.cohort_hash import cohort_sha256
from ctenrich.settings import ConvertSettings, FetchSettings, Settings
from ctenrich.storage.s3 import S3Storage

COUNT = 3
FILES = 16


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("cohort"), COUNT)


@pytest.fixture(scope="module")
def store(local: Path) -> Iterator[str]:
    need_package("moto", "moto")
    with s3_server() as url:
        s3_bucket(url, "tests")
        for entry in read_cohort(local).series:
            for n, instance in enumerate(entry.instances):
                content = Path(unquote(urlsplit(instance.url).path)).read_bytes()
                s3_put(url, "tests", f"{entry.series_instance_uid}/{n:03d}.dcm", content)
        yield url


def remote(local: Path, out: Path, **changes: SeriesEntry) -> Path:
    """The same cohort with the addresses of the store."""

    def moved(entry: SeriesEntry) -> SeriesEntry:
        address = f"s3://tests/{entry.series_instance_uid}/"
        return changes.get(entry.patient_id, replace(entry, instances=(Instance("", address),)))

    cohort = read_cohort(local)
    series = tuple(map(moved, cohort.series))
    pq.write_table(cohort_table(Cohort(cohort.name, series, cohort_sha256(series))), out)
    return out


def settings(url: str, at_once: int = 2) -> Settings:
    fetch = FetchSettings(s3_endpoint=url, series_at_once=at_once, tries=2, backoff=0.01)
    return Settings(fetch=fetch, convert=ConvertSettings(nifti=False))


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of objects that each s5cmd was told to copy."""
    counts: list[int] = []
    run = S3Storage._run

    def counted(self: S3Storage, lines: Sequence[Sequence[str]], *rest: Any) -> Any:
        number = sum(line[0] == "cp" for line in lines)
        counts.extend([number] if number else [])
        return run(self, lines, *rest)

    monkeypatch.setattr(S3Storage, "_run", counted)
    return counts


def made(run: Run) -> dict[str, str]:
    return result_hashes(run.root)


def test_one_manifest_brings_several_series(local: Path, store: str, tmp_path: Path, copies: list[int]) -> None:
    cohort = remote(local, tmp_path / "cohort.parquet")
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=settings(store))
    summary = steps.run_all(run)
    assert summary.exit_code == 0, summary
    series = [n for n in copies if n > 1]
    assert series == [2 * FILES, FILES]
    assert sum(copies) - sum(series) <= COUNT, "the companions"
    plain = steps.start(local, tmp_path / "plain", segmenters=["expert"], settings=settings(store))
    assert steps.run_all(plain).exit_code == 0
    assert made(run) == made(plain)


def test_each_series_on_its_own_where_asked_for(local: Path, store: str, tmp_path: Path, copies: list[int]) -> None:
    cohort = remote(local, tmp_path / "cohort.parquet")
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=settings(store, at_once=1))
    steps.fetch(run)
    assert [n for n in copies if n > 1] == [FILES] * COUNT


def test_a_series_that_is_not_there_costs_the_others_nothing(local: Path, store: str, tmp_path: Path) -> None:
    third = read_cohort(local).series[2]
    gone = replace(third, instances=(Instance("", "s3://tests/never/"),))
    cohort = remote(local, tmp_path / "cohort.parquet", **{third.patient_id: gone})
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=settings(store))
    summary = steps.run_all(run)
    assert summary.reasons["INCOMPLETE"] == 1
    assert summary.states[State.DONE.value] == 2 * (COUNT - 1)


def test_two_workers_do_not_fetch_anything_twice(local: Path, store: str, tmp_path: Path) -> None:
    cohort = remote(local, tmp_path / "cohort.parquet")
    two = replace(settings(store, at_once=2), run=replace(Settings().run, input_workers=2))
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"], settings=two)
    summary = steps.run_all(run, executor=ExecutorName.PROCESSES)
    assert summary.exit_code == 0, summary
    sources = list(run.root.glob("series/*/source/*.dcm"))
    assert len(sources) == COUNT * FILES

"""Runners on different machines: leases in a store, nobody's work done twice, the dead one's work taken over."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ctenrich import sharing, steps
from ctenrich.errors import UsageError
from ctenrich.ledger import Lease, Ledger
from ctenrich.reasons import Reason
from ctenrich.records import State
from ctenrich.settings import FetchSettings
from ctenrich.sharing import SharedLeases
from tests.cohorts import make_cohort, result_hashes
from tests.conftest import need_package
from tests.storage.servers import gcs_bucket, gcs_server


@pytest.fixture(params=["file", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, FetchSettings]]:
    """Where runners meet: a folder, and a bucket of a real client's emulator."""
    if request.param == "file":
        yield (tmp_path / "leases").as_uri(), FetchSettings()
        return
    need_package("gcp-storage-emulator", "gcp_storage_emulator")
    with gcs_server() as url:
        gcs_bucket(url, "leases")
        yield "gs://leases/cohort", replace(FetchSettings(), gs_endpoint=url)


def test_a_series_has_one_holder_and_the_one_who_slept_cannot_commit(
    place: tuple[str, FetchSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_CLOCKS_DIFFER", 0.0)
    one, two = (SharedLeases(*place, tmp_path / name) for name in "ab")
    first = one.acquire("1.2", "a", 60)
    assert first is not None
    assert two.acquire("1.2", "b", 60) is None
    assert one.holds(first)
    renewed = one.renew(first, 60)
    assert renewed is not None
    assert not one.holds(first)
    slept = one.acquire("1.3", "a", -1)
    assert slept is not None
    taken = two.acquire("1.3", "b", 60)
    assert taken is not None
    assert taken.token > slept.token
    assert not one.holds(slept)
    assert one.renew(slept, 60) is None
    one.release(renewed)
    again = two.acquire("1.2", "b", 60)
    assert again is not None
    two.release(again, finished=True)
    assert one.acquire("1.2", "a", 60) is None
    assert one.finished_elsewhere("1.2")
    assert not two.finished_elsewhere("1.2")
    assert SharedLeases(*place, tmp_path / "b").acquire("1.2", "b2", 60) is not None, "its own runner may look again"


def test_who_looked_before_another_one_wrote_comes_late(
    place: tuple[str, FetchSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, quick = (SharedLeases(*place, tmp_path / name) for name in "ab")
    seen = late._newest("1.2")
    assert quick.acquire("1.2", "b", 60) is not None
    monkeypatch.setattr(late, "_newest", lambda _: seen)
    assert late.acquire("1.2", "a", 60) is None


def test_of_many_who_want_a_series_at_once_one_gets_it(tmp_path: Path) -> None:
    """On a file system; the bucket's emulator answers two who ask in the same moment as it likes."""
    place = (tmp_path / "leases").as_uri()
    runners = [SharedLeases(place, FetchSettings(), tmp_path / str(n)) for n in range(6)]
    for uid in ("1.1", "1.2", "1.3"):
        gate, got = threading.Barrier(len(runners)), list[Lease]()

        def want(runner: SharedLeases, name: str, uid: str = uid, gate: threading.Barrier = gate) -> None:
            gate.wait()
            lease = runner.acquire(uid, name, 60)
            if lease is not None:
                got.append(lease)  # noqa: B023

        threads = [threading.Thread(target=want, args=(r, str(n))) for n, r in enumerate(runners)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1


def test_two_machines_share_a_cohort(tmp_path: Path) -> None:
    """Two run folders, two ledgers, one cohort: together they hold every series once, with the usual bytes."""
    cohort = make_cohort(tmp_path, 4)
    whole = tmp_path / "undisturbed"
    assert steps.run_all(steps.start(cohort, whole, segmenters=["expert"])).exit_code == 0
    command = [sys.executable, "-m", "ctenrich.cli.main", "run", str(cohort), "--segmenter", "expert"]
    command += ["--executor", "serial", "--share", (tmp_path / "leases").as_uri()]
    runs = [tmp_path / "a", tmp_path / "b"]
    both = [
        subprocess.Popen([*command, "--out", str(r)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for r in runs
    ]
    assert [(p.communicate(timeout=300)[0], p.returncode)[1] for p in both] == [0, 0]
    made = [result_objects(run) for run in runs]
    assert not made[0].keys() & made[1].keys()
    assert made[0] | made[1] == result_objects(whole)
    done, elsewhere = [], []
    for run in runs:
        with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
            outcomes = [o for o in ledger.outcomes() if not o.product]
        done += [o.series_instance_uid for o in outcomes if o.state is State.DONE]
        elsewhere += [o.series_instance_uid for o in outcomes if o.reason is Reason.ELSEWHERE]
    assert len(done) == len(set(done)) == 4
    assert sorted(elsewhere) == sorted(done)
    again = subprocess.run([*command, "--out", str(runs[0])], capture_output=True, check=False)
    assert again.returncode == 0
    assert result_objects(runs[0]) == made[0]


def result_objects(run: Path) -> dict[str, str]:
    return {name: digest for name, digest in result_hashes(run).items() if name.endswith(".dcm")}


def test_what_a_dead_runner_held_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_CLOCKS_DIFFER", 0.0)
    monkeypatch.setattr(SharedLeases, "patience", 0.1)
    cohort, place = make_cohort(tmp_path, 2), (tmp_path / "leases").as_uri()
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"])
    dead = SharedLeases(place, FetchSettings(), tmp_path / "dead")
    assert dead.acquire(run.cohort.series[0].series_instance_uid, "dead", 3.0) is not None
    began = time.monotonic()
    assert steps.run_all(run, share=place).exit_code == 0
    assert time.monotonic() - began >= 2.0
    assert len(result_objects(run.root)) == 4


def test_a_store_that_cannot_create_atomically_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="BAD_PARAMETER"):
        SharedLeases("s3://bucket/x", FetchSettings(), tmp_path)


def test_a_place_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "leases" / "1.2").mkdir(parents=True)
    (tmp_path / "leases" / "1.2" / "00000001.json").write_text("[]")
    with pytest.raises(UsageError, match="holds something else"):
        SharedLeases((tmp_path / "leases").as_uri(), FetchSettings(), tmp_path).acquire("1.2", "a", 60)

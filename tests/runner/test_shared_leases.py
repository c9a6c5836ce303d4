"""Runners on different machines: leases in a store, nobody's work done twice, the dead one's work taken over."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.conftest import need_package
from tests.support.cohorts import make_cohort, result_hashes
from tests.support.storage_servers import FaultyProxy, gcs_bucket, gcs_precondition, gcs_server, s3_bucket, s3_server
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.errors import UsageError
from ctenrich.ledger.leases import Lease
from ctenrich.ledger.reader import LedgerReader
from ctenrich.reasons import Reason
from ctenrich.records import State
from ctenrich.runner import shared_leases as sharing
from ctenrich.runner.shared_leases import SharedLeases
from ctenrich.settings import FetchSettings

RACERS = 6


@pytest.fixture(params=["file", "gs", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, FetchSettings]]:
    """Where runners meet: a folder, and buckets that real clients reach.

    The emulators look and write in two steps, so what stands before them lets one request through at a time (and keeps
    Google's precondition, which that emulator ignores). Who looks for a lease that is about to be made finds none, as
    if all had looked before anyone wrote: only the precondition decides.
    """
    if request.param == "file":
        yield (tmp_path / "leases").as_uri(), FetchSettings()
        return
    gs = request.param == "gs"
    need_package(*(("gcp-storage-emulator", "gcp_storage_emulator") if gs else ("moto", "moto")))
    server, bucket = (gcs_server, gcs_bucket) if gs else (s3_server, s3_bucket)
    looks: Counter[str] = Counter()

    def unseen(method: str, path: str, _: int) -> str:
        look = method == ("GET" if gs else "HEAD") and urlsplit(path).path.endswith(".json") and "alt=media" not in path
        looks[path] += look
        return "404" if look and looks[path] <= RACERS else ""

    with server() as url:
        bucket(url, "leases")
        with FaultyProxy(url, unseen, at_once=1, refuse=gcs_precondition(url) if gs else None) as proxy:
            endpoint = {f"{request.param}_endpoint": proxy.url}
            yield f"{request.param}://leases/cohort", replace(FetchSettings(backoff=0.05), **endpoint)  # type: ignore[arg-type]


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


def test_of_many_who_want_a_series_at_once_one_gets_it(place: tuple[str, FetchSettings], tmp_path: Path) -> None:
    runners = [SharedLeases(*place, tmp_path / str(n)) for n in range(RACERS)]
    for uid in ("1.1", "1.2", "1.3"):
        gate, got = threading.Barrier(len(runners)), list[Lease | None]()

        def want(runner: SharedLeases, name: str, uid: str = uid, gate: threading.Barrier = gate) -> None:
            gate.wait()
            got.append(runner.acquire(uid, name, 60))  # noqa: B023

        threads = [threading.Thread(target=want, args=(r, str(n))) for n, r in enumerate(runners)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == RACERS, "nobody fails"
        assert len([lease for lease in got if lease is not None]) == 1


IMPATIENT = """
from ctenrich.cli.main import main
from ctenrich.runner.shared_leases import SharedLeases
SharedLeases.poll_interval = 0.2
main()
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A cohort, and the objects of a run that shares it with none."""
    folder = tmp_path_factory.mktemp("undisturbed")
    cohort = make_cohort(folder, 3)
    assert steps.run_all(steps.start(cohort, folder / "run", segmenters=["expert"])).exit_code == 0
    return cohort, result_objects(folder / "run")


@pytest.mark.parametrize("scheme", ["file", pytest.param("s3", marks=pytest.mark.long)])
@pytest.mark.long
def test_two_machines_share_a_cohort(
    tmp_path: Path, scheme: str, undisturbed: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two run folders, two ledgers, one cohort: together they hold every series once, with the usual bytes."""
    monkeypatch.setattr(SharedLeases, "poll_interval", 0.2)
    if scheme == "file":
        share_a_cohort(tmp_path, undisturbed, (tmp_path / "leases").as_uri())
        return
    need_package("moto", "moto")
    settings = tmp_path / "settings.toml"
    with s3_server() as url, FaultyProxy(url, lambda *_: "", at_once=1) as proxy:
        s3_bucket(url, "leases")
        settings.write_text(f'[fetch]\ns3_endpoint = "{proxy.url}"\n')
        share_a_cohort(tmp_path, undisturbed, "s3://leases/cohort", "--settings", str(settings))
        assert any(headers.get("if-none-match") == "*" for *_, headers in proxy.requests)


def share_a_cohort(tmp_path: Path, undisturbed: tuple[Path, dict[str, str]], place: str, *options: str) -> None:
    cohort, expected = undisturbed
    arguments = ["run", str(cohort), "--segmenter", "expert", "--executor", "serial", "--share", place, *options]
    runs = [tmp_path / "a", tmp_path / "b"]
    command = [sys.executable, "-c", IMPATIENT, *arguments]
    both = [
        subprocess.Popen([*command, "--out", str(r)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for r in runs
    ]
    assert [(p.communicate(timeout=300)[0], p.returncode)[1] for p in both] == [0, 0]
    made = [result_objects(run) for run in runs]
    assert not made[0].keys() & made[1].keys()
    assert made[0] | made[1] == expected
    done, elsewhere = [], []
    for run in runs:
        with LedgerReader(run / "ledger.sqlite") as ledger:
            outcomes = [o for o in ledger.outcomes() if not o.product]
        done += [o.series_instance_uid for o in outcomes if o.state is State.DONE]
        elsewhere += [o.series_instance_uid for o in outcomes if o.reason is Reason.DONE_BY_OTHER_RUNNER]
    assert len(done) == len(set(done)) == 3
    assert sorted(elsewhere) == sorted(done)
    again = CliRunner().invoke(app, [*arguments, "--out", str(runs[0])])
    assert again.exit_code == 0, again.output
    assert result_objects(runs[0]) == made[0]


def result_objects(run: Path) -> dict[str, str]:
    return {name: digest for name, digest in result_hashes(run).items() if name.endswith(".dcm")}


def test_what_a_dead_runner_held_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_CLOCKS_DIFFER", 0.0)
    monkeypatch.setattr(SharedLeases, "poll_interval", 0.1)
    cohort, place = make_cohort(tmp_path, 2), (tmp_path / "leases").as_uri()
    run = steps.start(cohort, tmp_path / "run", segmenters=["expert"])
    dead = SharedLeases(place, FetchSettings(), tmp_path / "dead")
    assert dead.acquire(run.cohort.series[0].series_instance_uid, "dead", 1.5) is not None
    began = time.monotonic()
    assert steps.run_all(run, share=place).exit_code == 0
    assert time.monotonic() - began >= 0.8
    assert len(result_objects(run.root)) == 4


def test_a_store_that_cannot_create_atomically_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="BAD_PARAMETER"):
        SharedLeases("https://bucket/x", FetchSettings(), tmp_path)
    need_package("moto", "moto")
    with s3_server() as url, FaultyProxy(url, lambda *_: "", strip="if-none-match") as deaf:
        s3_bucket(url, "leases")
        SharedLeases("s3://leases/a", replace(FetchSettings(), s3_endpoint=url), tmp_path)
        with pytest.raises(UsageError, match="overwrites") as caught:
            SharedLeases("s3://leases/b", replace(FetchSettings(), s3_endpoint=deaf.url), tmp_path)
    assert caught.value.reason is Reason.BAD_PARAMETER


@pytest.mark.parametrize("name", ["00000001.json", "notes.json"])
def test_a_place_that_holds_something_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "leases" / "1.2").mkdir(parents=True)
    (tmp_path / "leases" / "1.2" / name).write_text("[]")
    with pytest.raises(UsageError, match="holds something else"):
        SharedLeases((tmp_path / "leases").as_uri(), FetchSettings(), tmp_path).acquire("1.2", "a", 60)

"""Flows that wait for off-peak hours: others of their case run at once; images that come meanwhile are apart."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import time
from pathlib import Path

import pytest
from tests.listener.test_case_flows import CT, QUIET, FlowDesk
from tests.support.listeners import study_files

from ctenrich.errors import UsageError
from ctenrich.flows import running
from ctenrich.flows.running import End, EndState
from ctenrich.listener import cases
from ctenrich.listener.cases import CaseState
from ctenrich.listener.config import RunRequest, StationConfig
from ctenrich.listener.worker import CaseWorker

DAY, NIGHT = time(12), time(23)


class NightDesk(FlowDesk):
    """A station with off-peak hours."""

    def config(self, **values: object) -> StationConfig:
        return super().config(run=RunRequest(off_peak="22:00-06:00"), **values)

    def run(self, hour: time) -> bool | None:
        config = self.config()
        return CaseWorker(self.station, self.database, config, self.case_flows(), clock=lambda: hour).run_next()


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Flow and number of images of each run of its products, which makes two objects."""
    found: list[tuple[str, int]] = []

    def run(images: Path, out: Path, asked: RunRequest) -> End:
        found.append((out.parent.name, len(list(images.iterdir()))))
        folder = out / "series" / "1.2.3" / "expert" / "objects"
        folder.mkdir(parents=True, exist_ok=True)
        for path in study_files(78)[:2]:
            shutil.copy(path, folder)
        return End(EndState.DONE)

    monkeypatch.setattr(running, "run_products", run)
    return found


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[NightDesk]:
    made = NightDesk(tmp_path / "station", {"lungs": CT, "later": "when: off_peak\n" + CT})
    made.use(QUIET)
    yield made
    made.close()


def close_case(desk: NightDesk, *files: Path) -> None:
    desk.put(*files)
    desk.pass_time(1)
    desk.pass_time(60)


def test_a_flow_starts_in_off_peak_hours_and_the_others_at_once(desk: NightDesk, ran: list[tuple[str, int]]) -> None:
    close_case(desk, *study_files())
    assert desk.run(DAY) is True
    assert desk.states() == {"lungs": "done", "later": "planned"}
    row = cases.case_of(desk.database, 1)[0]
    assert (row.state, row.reason) == (CaseState.CLOSED, "OFF_PEAK")
    assert desk.run(DAY) is False, "nothing is left for the day"
    assert desk.run(NIGHT) is True
    assert desk.states() == {"lungs": "done", "later": "done"}
    row = cases.case_of(desk.database, 1)[0]
    assert (row.state, row.reason) == (CaseState.DONE, "")
    assert [flow for flow, _ in ran] == ["lungs", "later"], "what has ended is not repeated"
    assert desk.run(NIGHT) is False


def test_a_case_that_closes_at_night_runs_whole(desk: NightDesk, ran: list[tuple[str, int]]) -> None:
    close_case(desk, *study_files())
    assert desk.run(NIGHT) is True
    assert desk.states() == {"lungs": "done", "later": "done"}


def test_an_image_that_comes_meanwhile_opens_the_next_revision(desk: NightDesk, ran: list[tuple[str, int]]) -> None:
    *first, last = study_files()
    close_case(desk, *first)
    assert desk.run(DAY) is True
    close_case(desk, last)
    assert [(row.revision, row.state) for row in cases.case_of(desk.database, 1)] == [
        (2, CaseState.CLOSED), (1, CaseState.CLOSED),
    ]  # fmt: skip
    while desk.run(NIGHT):
        pass
    assert {row.state for row in cases.case_of(desk.database, 1)} == {CaseState.DONE}
    small, large = len(first), len(first) + 1
    assert sorted(ran) == sorted([("lungs", small), ("later", small), ("lungs", large), ("later", large)])


def test_a_flow_that_has_begun_goes_on_in_the_day(
    desk: NightDesk, ran: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    close_case(desk, *study_files())
    assert desk.run(DAY) is True
    with monkeypatch.context() as patch:
        patch.setattr(running, "run_products", lambda *_: End(EndState.INTERRUPTED))
        assert desk.run(NIGHT) is None
    assert desk.states() == {"lungs": "done", "later": "running"}
    assert desk.run(DAY) is True
    assert desk.states() == {"lungs": "done", "later": "done"}


def test_the_settings_of_a_station_are_checked() -> None:
    with pytest.raises(UsageError, match=r"run\.off_peak"):
        StationConfig(run=RunRequest(off_peak="at night")).check()

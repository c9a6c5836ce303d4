"""Results of flows on their way out: each flow's destinations, senders and hooks, and what a listener refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.listener.test_case_flows import CT, FlowDesk
from tests.support.listeners import study_files

from ctenrich.delivery.decisions import delivery_rows
from ctenrich.delivery.destination import Destination, Hook
from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.flows import running
from ctenrich.flows.errors import BadFlowError
from ctenrich.flows.reader import parse_flow
from ctenrich.flows.running import End, EndState
from ctenrich.listener import cases
from ctenrich.listener.config import RunRequest, StationConfig, TlsFiles
from ctenrich.listener.flow_sending import check_for_listener, flow_destinations

LUNGS = (
    CT
    + """
destinations:
  - {host: 10.1.2.3, port: 104, ae_title: PACS}
  - {name: research, folder: %s}
return_to_sender_on_ports: [104]
priority: 2
hooks: [{on: [done, failed], webhook: https://chat.example.org/hook}]
"""
)


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[object]:
    made: list[FlowDesk] = []

    def make(**flows: str) -> FlowDesk:
        made.append(FlowDesk(tmp_path / "station", flows))
        return made[-1]

    yield make
    for desk in made:
        desk.close()


@pytest.fixture(params=[EndState.DONE])
def two_objects(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> EndState:
    """Runs that make two objects, and end in the state of the parameter."""

    def run(images: Path, out: Path, asked: RunRequest) -> End:
        folder = out / "series" / "1.2.3" / "expert" / "objects"
        folder.mkdir(parents=True, exist_ok=True)
        for path in study_files(78)[:2]:
            shutil.copy(path, folder)
        return End(request.param, "NO_CT" if request.param is EndState.FAILED else "")

    monkeypatch.setattr(running, "run_products", run)
    return EndState(request.param)


def close_and_run(desk: FlowDesk, config: StationConfig | None = None) -> None:
    desk.put(*study_files())
    desk.ended(1, "released")
    desk.pass_time(1)
    desk.pass_time(60)
    assert desk.worker(config).run_next() is True


def outgoing(desk: FlowDesk) -> set[tuple[str, str, str, str, int]]:
    with DeliveryQueue(desk.station.deliveries) as queue:
        rows = delivery_rows(queue)
    return {(row.flow, row.destination, row.state.value, row.reason, row.objects) for row in rows}


def notices(desk: FlowDesk) -> list[dict[str, object]]:
    with DeliveryQueue(desk.station.deliveries) as queue:
        return [json.loads(row["message"]) for row in queue.database.rows("SELECT message FROM notifications")]


def test_each_flow_has_queues_of_its_own(make_desk, tmp_path: Path, two_objects: EndState) -> None:
    desk = make_desk(lungs=LUNGS % (tmp_path / "out"), bones=LUNGS % (tmp_path / "out"))
    pacs = Destination(name="station pacs", address="dicom://10.9.9.9:104/PACS")
    close_and_run(desk, desk.config(destinations=(pacs,)))
    assert outgoing(desk) == {
        (flow, f"{flow}: {name}", state, "", 2)
        for flow in ("bones", "lungs")
        for name, state in {
            "PACS@10.1.2.3:104": "held",
            "research": "queued",
            "sender S@[::1]:104": "held",
            "station pacs": "held",
        }.items()
    }
    assert [(one["event"], one["flow"]) for one in notices(desk)] == [("done", "bones"), ("done", "lungs")]
    with DeliveryQueue(desk.station.deliveries) as queue:
        (sent,) = [one for one in queue.due() if one.name == "lungs: research"]
        assert len(queue.to_send(sent.name, 10)) == 2
    assert cases.replay(desk.database, 1) == 2
    assert desk.worker().run_next() is True
    assert {row[2] for row in outgoing(desk) if row[1] == "lungs: research"} == {"queued"}, "once, for the new revision"


@pytest.mark.parametrize("two_objects", [EndState.FAILED], indirect=True)
def test_results_of_a_failed_flow_are_held_and_its_hook_hears_of_it(
    make_desk, tmp_path: Path, two_objects: EndState
) -> None:
    desk = make_desk(lungs=LUNGS % (tmp_path / "out"))
    close_and_run(desk)
    assert {row[2:4] for row in outgoing(desk)} == {("held", "CASE_FAILED")}
    assert [(one["event"], one["destination"], one["reasons"]) for one in notices(desk)] == [
        ("failed", "lungs:", ["NO_CT"])
    ]


def test_a_revision_that_is_given_up_ends_its_flows(make_desk, tmp_path: Path, two_objects: EndState) -> None:
    desk = make_desk(lungs=LUNGS % (tmp_path / "out"))
    desk.put(*study_files())
    desk.pass_time(1)
    desk.pass_time(60)
    with desk.database.transaction() as db:
        db.execute("UPDATE revisions SET deaths = 3")
    assert desk.worker().run_next() is True
    assert desk.states() == {"lungs": "failed"}
    assert [(one["event"], one["reasons"]) for one in notices(desk)] == [("failed", ["WORKER_DIED"])]
    assert not outgoing(desk)


def test_destinations_of_a_flow_as_the_queue_has_them() -> None:
    text = """
    destinations:
      - {host: '::1', port: 104, ae_title: PACS, calling_ae_title: ME, tls: true, hold: false}
      - {url: 'https://pacs.example.org/dicom-web'}
      - {bucket: 'gs://bucket/prefix', name: 'lungs/results'}
    """
    config = StationConfig(aet="STATION", tls=TlsFiles(certificate="c.pem", key="k.pem", ca="a.pem"))
    node, web, bucket = flow_destinations(parse_flow((CT + text.replace("\n    ", "\n")).encode(), Path("f")), config)
    assert node == Destination(
        name="f: PACS@::1:104", address="dicom://[::1]:104/PACS", hold=False, calling="ME",
        tls_ca="a.pem", tls_certificate="c.pem", tls_key="k.pem",
    )  # fmt: skip
    assert (web.address, web.calling, web.holds) == ("https://pacs.example.org/dicom-web", "STATION", True)
    assert (bucket.address, bucket.holds, bucket.identified) == ("gs://bucket/prefix", False, False)
    assert bucket.name.startswith("f: lungs_results-")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("destinations: [{host: a, port: 104, ae_title: A, tls: true}]", "station.toml"),
        ("destinations: [{host: a, port: 104, ae_title: A#B}]", "AE title"),
        ("destinations: [{folder: out}]", "no absolute path"),
        ("destinations: [{url: 'https://user:secret@pacs.example.org/'}]", "no user name or password"),
        ("destinations: [{url: 'https://pacs.example.org/', tls: true}]", "tls is for DICOM nodes"),
        ("hooks: [{on: done, email: a@example.org}]", "mail relay"),
        ("hooks: [{on: done, webhook: 'http://example.org/', identifiers: true}]", "https only"),
        ("when: off_peak", "has no off-peak hours"),
    ],
)
def test_what_a_listener_cannot_do_is_refused_when_the_file_is_read(text: str, message: str) -> None:
    flow = parse_flow((CT + text).encode(), Path("lungs.yaml"))
    with pytest.raises(BadFlowError, match=message) as caught:
        check_for_listener(flow, StationConfig())
    assert str(caught.value.message).startswith(f"lungs.yaml: line 3, column {text.index(': ') + 3 + ('[' in text)}: ")


def test_a_flow_that_a_listener_cannot_run_does_not_fire_and_is_reported(make_desk) -> None:
    desk = make_desk(lungs=CT, later="when: off_peak\n" + CT)
    desk.put(*study_files())
    desk.pass_time(1)
    desk.pass_time(60)
    assert desk.states() == {"lungs": "planned"}


def test_hooks_of_the_station_hear_of_each_flow(make_desk, two_objects: EndState) -> None:
    desk = make_desk(lungs=CT)
    hook = Hook(name="chat", address="https://chat.example.org/", events=("done",))
    close_and_run(desk, desk.config(hooks=(hook,)))
    assert [(one["event"], one["flow"]) for one in notices(desk)] == [("done", "lungs")]

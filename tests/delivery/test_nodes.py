"""Delivery to DICOM nodes that work, warn, refuse, are full, are down, lose objects, or break off."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from tests.conftest import need_program
from tests.publish.test_objects import free_port, instances, orthanc, program
from tests.support.listeners import study_files, uid_of
from tests.support.nodes import Node, Post, changed_copy, node

from ctenrich.delivery.decisions import delivery_rows, drop, release, retry
from ctenrich.delivery.destination import Destination, OwnAddresses
from ctenrich.delivery.hooks import backoff
from ctenrich.delivery.metrics import DELIVERY_METRICS, delivery_numbers
from ctenrich.delivery.records import Batch
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

__all__ = ["orthanc"]
pytest.importorskip("pynetdicom")


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    made = Post(tmp_path)
    yield made
    made.queue.close()


@pytest.fixture
def pacs() -> Iterator[Node]:
    with node() as made:
        yield made


def to(address: str, **values: object) -> Destination:
    return Destination(**{"name": "pacs", "address": address, "hold": False, "retry_seconds": 10.0, **values})  # type: ignore[arg-type]


FILES = study_files()[:3]
UIDS = [uid_of(path) for path in FILES]


def test_objects_are_sent_once_as_they_are_stored_and_confirmed(post: Post, pacs: Node) -> None:
    post.add(to(pacs.address), *FILES)
    assert post.work() == {"sent": 3}
    assert (dict(pacs.sends), pacs.syntaxes) == (dict.fromkeys(UIDS, 1), {ExplicitVRLittleEndian})
    assert all(path.read_bytes().endswith(pacs.held[uid_of(path)]) for path in FILES)
    assert post.column("confirmed") == ["", "", ""]
    post.work(20)
    assert post.column("confirmed") == ["listed"] * 3
    post.add(to(pacs.address), *FILES)
    post.add(to(pacs.address), *FILES, revision=2)
    assert post.work(1000) == {"sent": 3}
    assert set(pacs.sends.values()) == {1}


def test_nodes_hold_their_objects_until_a_person_releases_them(post: Post, pacs: Node) -> None:
    post.add(to(pacs.address, hold=None), *FILES)
    assert post.work(3600) == {"held": 3}
    assert not pacs.sends
    assert release(post.queue, 1, "pacs") == 3
    assert post.work() == {"sent": 3}
    with pytest.raises(UsageError, match="no object that is held"):
        release(post.queue, 1)


def test_warnings_are_kept_and_are_no_failures(post: Post, pacs: Node) -> None:
    pacs.answer = lambda uid: {UIDS[0]: 0xB000, UIDS[1]: 0xB123}.get(uid, 0)
    post.add(to(pacs.address), *FILES)
    assert post.work() == {"sent": 1, "warning": 2}
    assert post.column("status") == [0xB000, 0xB123, 0]
    assert set(pacs.sends.values()) == {1}


def test_a_refused_object_fails_alone_and_can_be_sent_again(post: Post, pacs: Node) -> None:
    pacs.answer = lambda uid: 0xA900 if uid == UIDS[1] else 0
    post.add(to(pacs.address), *FILES)
    assert post.work() == {"sent": 2, "failed": 1}
    row = next(row for row in delivery_rows(post.queue) if row.state == "failed")
    assert (row.reason, row.detail) == ("DELIVERY_REFUSED", "status A900")
    pacs.answer = lambda _: 0
    assert retry(post.queue, 1) == 1
    assert post.work() == {"sent": 3}
    assert pacs.sends == {UIDS[0]: 1, UIDS[1]: 2, UIDS[2]: 1}


def test_an_object_that_a_node_cannot_process_is_tried_four_times(post: Post, pacs: Node) -> None:
    pacs.answer = lambda uid: 0xC001 if uid == UIDS[0] else 0
    post.add(to(pacs.address), *FILES)
    assert post.work() == {"sent": 2, "queued": 1}
    assert post.work(5) == {"sent": 2, "queued": 1}
    assert pacs.sends[UIDS[0]] == 1
    for _ in range(3):
        post.work(100)
    assert post.states() == {"sent": 2, "failed": 1}
    assert pacs.sends[UIDS[0]] == 4
    assert delivery_rows(post.queue, states=("failed",))[0].reason == "DELIVERY_REFUSED"


def test_a_full_node_gets_nothing_until_it_has_space_again(post: Post, pacs: Node) -> None:
    pacs.answer = lambda _: 0xA700
    post.add(to(pacs.address), *FILES)
    assert post.work() == {"queued": 3}
    assert sum(pacs.sends.values()) == 1
    assert post.queue.due() == []
    pacs.answer = lambda _: 0
    assert post.work(11) == {"sent": 3}


def test_a_node_that_is_down_is_tried_with_longer_and_longer_waits(post: Post, pacs: Node) -> None:
    port = free_port()
    post.add(to(f"dicom://127.0.0.1:{port}/NODE"), *FILES)
    post.add(to(pacs.address, name="other"), *FILES)
    assert post.work() == {"queued": 3, "sent": 3}
    waits = []
    for _ in range(3):
        waits.append(delivery_rows(post.queue, states=("queued",))[0].next_attempt - post.now)  # type: ignore[operator]
        post.work(waits[-1])
    assert waits == [10, 20, 40]
    assert [backoff(10.0, failures) for failures in (3, 5, 6, 7, 1000)] == [80, 320, 640, 900, 900]
    with node(port=port) as back:
        assert post.work(80) == {"sent": 6}
        assert dict(back.sends) == dict.fromkeys(UIDS, 1)


def test_what_cannot_be_sent_for_too_long_has_failed(post: Post) -> None:
    post.add(to(f"dicom://127.0.0.1:{free_port()}/NODE", give_up_days=1.0), FILES[0])
    assert post.work() == {"queued": 1}
    assert post.work(86401) == {"failed": 1}
    assert delivery_rows(post.queue)[0].reason == "DELIVERY_FAILED"


def test_an_association_that_ends_in_the_middle_goes_on_with_what_is_left(post: Post, pacs: Node) -> None:
    cut = [UIDS[1]] * 2  # an object without an answer is sent again at once, and then with the next attempt
    pacs.aborts = lambda uid: uid in cut and not cut.remove(uid)  # type: ignore[func-returns-value]
    post.add(to(pacs.address), *FILES)
    assert post.work() == {"sent": 1, "queued": 2}
    assert post.work(11) == {"sent": 3}
    assert pacs.associations == 3
    assert set(pacs.held) == set(UIDS)


def test_a_node_without_the_sop_class(post: Post) -> None:
    with node(classes=("1.2.840.10008.5.1.4.1.1.88.33",)) as made:
        post.add(to(made.address), *FILES)
        assert post.work() == {"failed": 3}
        assert not made.sends
    row = delivery_rows(post.queue)[0]
    assert row.reason == "DELIVERY_REFUSED"
    assert "CT Image Storage" in row.detail


def test_numbers_of_deliveries_for_the_metrics(post: Post, pacs: Node, tmp_path: Path) -> None:
    assert delivery_numbers(tmp_path / "none.sqlite") == {}
    pacs.answer = lambda uid: {UIDS[0]: 0xB000, UIDS[1]: 0xA900}.get(uid, 0)
    post.add(to(pacs.address), *FILES)
    post.add(to(f"dicom://127.0.0.1:{free_port()}/NODE", name="down"), *FILES)
    post.add(to(pacs.address, name="later", hold=True), FILES[0])
    post.work()
    retry(post.queue, 1)
    post.work(11)
    numbers = delivery_numbers(post.path, now=post.now + 100)
    assert {name for name, _, _ in numbers} == set(DELIVERY_METRICS)
    found = {f"{name} {value}".strip(): number for (name, _, value), number in numbers.items() if number}
    assert found == {
        "ctenrich_deliveries warning": 1, "ctenrich_deliveries failed": 1, "ctenrich_deliveries sent": 1,
        "ctenrich_deliveries queued": 3, "ctenrich_deliveries held": 1, "ctenrich_deliveries_confirmed waiting": 2,
        "ctenrich_delivery_sends_total": 4, "ctenrich_delivery_repeats_total": 1,
        "ctenrich_delivery_wait_seconds": 111, "ctenrich_destination_failures down": 2,
    }  # fmt: skip


@pytest.mark.long
def test_a_node_that_accepts_and_loses(post: Post, pacs: Node) -> None:
    pacs.loses = lambda uid: uid == UIDS[0] and pacs.sends[uid] == 1
    post.add(to(pacs.address, confirm_seconds=1.0), *FILES)
    post.work()
    for _ in range(6):
        post.work(300)
    assert post.states() == {"sent": 3}
    assert post.column("confirmed") == ["listed"] * 3
    assert pacs.sends == {UIDS[0]: 2, UIDS[1]: 1, UIDS[2]: 1}


@pytest.mark.long
def test_a_node_that_loses_an_object_each_time(post: Post, pacs: Node) -> None:
    pacs.loses = lambda uid: uid == UIDS[0]
    post.add(to(pacs.address, confirm_seconds=1.0), *FILES)
    for _ in range(9):
        post.work(300)
    assert post.states() == {"sent": 2, "failed": 1}
    assert delivery_rows(post.queue, states=("failed",))[0].reason == "DELIVERY_LOST"
    assert pacs.sends[UIDS[0]] == 2


def test_a_node_that_cannot_be_asked(post: Post) -> None:
    with node(query=False) as made:
        post.add(to(made.address, confirm_seconds=1.0), *FILES)
        post.work()
        post.work(10)
        assert post.column("confirmed") == ["not offered"] * 3
        assert set(made.sends.values()) == {1}


def test_a_kill_between_the_send_and_its_record_sends_the_same_object_again(post: Post, pacs: Node) -> None:
    post.add(to(pacs.address), *FILES)
    first = post.queue.to_send("pacs", 1)[0]
    assert post.queue.begin(first)
    assert post.queue.recover() == 1
    assert post.work() == {"sent": 3}
    assert post.column("sends") == [2, 1, 1]
    assert set(pacs.held) == set(UIDS)


def test_a_later_revision_replaces_what_was_not_sent(post: Post, pacs: Node, tmp_path: Path) -> None:
    post.add(to(pacs.address, hold=True), *FILES[:2])
    post.add(to(pacs.address, hold=True), *FILES[1:], revision=2)
    rows = {(row.revision, row.state.value, row.reason): row.objects for row in delivery_rows(post.queue)}
    assert rows == {(1, "dropped", "SUPERSEDED"): 1, (2, "held", ""): 2}
    release(post.queue, 1)
    post.work()
    assert set(pacs.held) == set(UIDS[1:])


def test_other_bytes_under_a_uid_that_was_sent_are_not_sent(post: Post, pacs: Node, tmp_path: Path) -> None:
    post.add(to(pacs.address), FILES[0])
    post.work()
    other = changed_copy(FILES[0], tmp_path / "other.dcm")
    post.add(to(pacs.address), other, revision=2)
    assert post.work() == {"sent": 1, "failed": 1}
    assert delivery_rows(post.queue, states=("failed",))[0].reason == Reason.CONFLICTING_DUPLICATE
    with pytest.raises(UsageError, match="no object that is failed"):
        retry(post.queue, 1)
    assert pacs.sends == {UIDS[0]: 1}


def test_a_file_that_changed_after_it_was_queued_is_not_sent(post: Post, pacs: Node, tmp_path: Path) -> None:
    copies = [Path(shutil.copy(path, tmp_path)) for path in FILES[:2]]
    post.add(to(pacs.address), *copies)
    changed_copy(copies[0], copies[0])
    copies[1].unlink()
    assert post.work() == {"failed": 2}
    assert post.column("reason") == ["CHECKSUM", "NOT_FOUND"]
    assert not pacs.sends


def test_dropped_objects_are_not_sent(post: Post, pacs: Node) -> None:
    post.add(to(pacs.address), *FILES)
    assert drop(post.queue, 1) == 3
    assert post.work(100) == {"dropped": 3}
    assert not pacs.sends


def test_a_destination_that_is_this_listener_gets_a_case_once(post: Post, pacs: Node) -> None:
    own = OwnAddresses(ports=frozenset({pacs.port}))
    for revision, path in enumerate(FILES, 1):
        batch = Batch(case=1, revision=revision, destination=to(pacs.address), files=(path,))
        post.queue.add(batch, own=own)
        post.work()
    assert dict(pacs.sends) == {UIDS[0]: 1}
    rows = {(row.revision, row.state.value, row.reason) for row in delivery_rows(post.queue)}
    assert rows == {(1, "sent", ""), (2, "dropped", "LOOP"), (3, "dropped", "LOOP")}
    other = to(f"dicom://10.99.99.99:{pacs.port}/NODE")
    assert not own.includes(other)
    assert own.includes(to(f"dicom://localhost:{pacs.port}/NODE"))


def test_dcmtk_storescp_gets_every_object(post: Post, tmp_path: Path) -> None:
    binary, port, folder = need_program("dcmtk", "storescp"), free_port(), tmp_path / "in"
    folder.mkdir()
    with program([binary, "-od", str(folder), "-aet", "NODE", str(port)], port):
        post.add(to(f"dicom://127.0.0.1:{port}/NODE"), *FILES)
        assert post.work() == {"sent": 3}
    assert {uid_of(path) for path in folder.iterdir()} == set(UIDS)


def test_dcmtk_storescp_that_refuses_all_associations(post: Post) -> None:
    binary, port = need_program("dcmtk", "storescp"), free_port()
    with program([binary, "--refuse", str(port)], port):
        post.add(to(f"dicom://127.0.0.1:{port}/NODE"), *FILES)
        assert post.work() == {"queued": 3}


@pytest.mark.long
def test_orthanc_gets_every_object_by_c_store_and_stow(post: Post, orthanc: tuple[str, int]) -> None:
    root, dicom = orthanc
    post.add(to(f"dicom://127.0.0.1:{dicom}/ORTHANC", confirm_seconds=1.0), *FILES[:2])
    post.add(to(f"{root}/dicom-web", name="web"), FILES[2])
    assert post.work() == {"sent": 3}
    post.work(10)
    assert post.column("confirmed") == ["listed", "listed", "not asked"]
    assert instances(root) == set(UIDS)

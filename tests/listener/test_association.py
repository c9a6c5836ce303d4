"""Associations PDU by PDU: messages in any fragments, what breaks the protocol, and how an association ends."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from tests.listener.test_senders import data_set
from tests.listener.test_store import open_store
from tests.support.listeners import LIMITS, study_files, uid_of

from ctenrich.listener.admission import Rejection, Ticket
from ctenrich.listener.commands import Command, read_command, response_to
from ctenrich.listener.config import Peer
from ctenrich.listener.database import StationDatabase
from ctenrich.listener.deliveries import Deliveries
from ctenrich.listener.incoming import FileMeta, encode_head, read_meta
from ctenrich.listener.metrics import Counters
from ctenrich.listener.pdus import AbortReason, ProtocolError, wait_for_close
from ctenrich.listener.station import Station
from ctenrich.listener.store import ObjectStore

pytest.importorskip("pynetdicom")
from ctenrich.listener.association import Association, Ending
from ctenrich.listener.negotiation import Negotiated, negotiate

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
ANSWER = b"the A-ASSOCIATE-AC"
NEGOTIATED = Negotiated(answer=ANSWER, transfer_syntaxes={1: EXPLICIT, 3: "1.2.840.10008.1.2"}, max_pdu=0)
RELEASE, ABORT = bytes.fromhex("05000000000400000000"), bytes.fromhex("07000000000400000000")


class Bench:
    """A store for many associations, and what the last one left."""

    def __init__(self, root: Path) -> None:
        self.store: ObjectStore
        self.store, self.database = open_store(root)
        self.station = Station(root)
        self.events = StationDatabase(self.station.database)
        self.deliveries = Deliveries(self.station, self.events, Counters())
        self.ending: Ending | None = None
        self.association: Association

    @contextmanager
    def associated(self, negotiated: Negotiated = NEGOTIATED, **limits: float) -> Iterator[socket.socket]:
        """The requestor's end of an association, behind its A-ASSOCIATE-AC; at the end `ending` is known."""
        ours, theirs = socket.socketpair()
        ticket = Ticket(number=1, aet="SENDER", host="127.0.0.1", peer=Peer(aet="SENDER", host="127.0.0.1"))
        self.association = Association(
            theirs, negotiated, limits=replace(LIMITS, **limits), store=self.store, deliveries=self.deliveries,
            number=self.deliveries.started(ticket),
        )  # fmt: skip

        def run() -> None:
            self.ending = self.association.run()
            with theirs:
                wait_for_close(theirs, 10)  # as the server does: what the test still sends is no error

        self.ending = None
        thread = threading.Thread(target=run)
        thread.start()
        with ours:
            ours.settimeout(10)
            assert ours.recv(len(ANSWER)) == ANSWER
            yield ours
        thread.join(10)
        assert not thread.is_alive()

    def stored(self, uid: str) -> bytes | None:
        """Data set of a stored object."""
        rows = self.database.rows("SELECT path, size FROM instances WHERE sop_instance_uid = ?", (uid,))
        if not rows:
            return None
        data = (self.station.received / rows[0]["path"]).read_bytes()[: rows[0]["size"]]
        return data[144 + int.from_bytes(data[140:144], "little") :]

    def close(self) -> None:
        self.store.close()
        self.database.close()
        self.events.close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("association") / "station")
    yield made
    made.close()


def command_set(**values: Any) -> bytes:
    """A command set, encoded by pynetdicom."""
    from pydicom.dataset import Dataset
    from pynetdicom.dsutils import encode

    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    encoded = encode(dataset, True, True)
    assert encoded is not None
    return encoded


def store_command(uid: str, message: int = 7) -> bytes:
    return command_set(
        AffectedSOPClassUID=CT, CommandField=1, MessageID=message, Priority=0, CommandDataSetType=1,
        AffectedSOPInstanceUID=uid,
    )  # fmt: skip


def value(control: int, data: bytes, context: int = 1) -> bytes:
    """A presentation data value: 1 and 3 are pieces of a command set, 0 and 2 of a data set; 2 and 3 the last ones."""
    return (len(data) + 2).to_bytes(4, "big") + bytes([context, control]) + data


def p_data(*values: bytes) -> bytes:
    body = b"".join(values)
    return b"\x04\0" + len(body).to_bytes(4, "big") + body


def answer(connection: socket.socket) -> bytes:
    """The next PDU that comes."""
    data = connection.recv(6, socket.MSG_WAITALL)
    return data + connection.recv(int.from_bytes(data[2:6], "big"), socket.MSG_WAITALL)


def statuses(pdus: bytes) -> list[int]:
    """Statuses of responses, each in one PDU, decoded by pynetdicom."""
    from pynetdicom.dsutils import decode

    found, at = [], 0
    while at < len(pdus):
        length = int.from_bytes(pdus[at + 2 : at + 6], "big")
        found.append(int(decode(BytesIO(pdus[at + 12 : at + 6 + length]), True, True).Status))
        at += 6 + length
    return found


# ---------------------------------------------------------------- encodings


def test_command_sets_are_read_and_written_as_by_another_implementation() -> None:
    command = read_command(store_command("1.2.3.45", message=300))
    assert command == Command(field=1, message_id=300, has_data_set=True, sop_class_uid=CT, sop_instance_uid="1.2.3.45")
    expected = command_set(
        AffectedSOPClassUID=CT, CommandField=0x8001, MessageIDBeingRespondedTo=300, CommandDataSetType=0x0101,
        Status=0xA700, AffectedSOPInstanceUID="1.2.3.45",
    )  # fmt: skip
    group_length = b"\0\0\0\0\x04\0\0\0" + len(expected).to_bytes(4, "little")
    assert response_to(command, 0xA700) == group_length + expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0\1",
        store_command("1.2")[:-1],
        store_command("1.2").replace(b"\0\0\0\1\2", b"\0\0\0\1\3"),
        b"\1" * 40,
    ],
    ids=["empty", "cut", "cut value", "length", "group"],
)
def test_what_is_no_command_set(data: bytes) -> None:
    with pytest.raises(ValueError, match="command set"):
        read_command(data)


@pytest.mark.parametrize("uid", [b"1.2\x80", b"1" * 65, b"1\n2"])
def test_identifiers_that_cannot_be_kept_are_no_identifiers(uid: bytes) -> None:
    data = command_set(CommandField=1, CommandDataSetType=1) + b"\0\0\0\x10" + len(uid).to_bytes(4, "little") + uid
    assert read_command(data).sop_instance_uid == ""


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34"])
def test_the_file_meta_information_can_be_read(uid: str) -> None:
    head = encode_head(FileMeta(CT, uid, EXPLICIT))
    assert read_meta(head) == FileMeta(CT, uid, EXPLICIT)
    meta = dcmread(BytesIO(head)).file_meta
    assert meta.FileMetaInformationGroupLength == len(head) - 144
    assert (meta.FileMetaInformationVersion, meta.ImplementationVersionName) == (b"\0\1", "CTENRICH")


def associate_request(*, version: int = 1, application: str = "1.2.840.10008.3.1.1.1") -> bytes:
    """An A-ASSOCIATE-RQ for CT in two transfer syntaxes, verification, and query, with a role; by pynetdicom."""
    from pynetdicom import pdu_primitives as primitives
    from pynetdicom.pdu import A_ASSOCIATE_RQ
    from pynetdicom.presentation import build_context, build_role

    request = primitives.A_ASSOCIATE()
    request.application_context_name = application
    request.calling_ae_title, request.called_ae_title = "SENDER", "CTENRICH"
    length, implementation = primitives.MaximumLengthNotification(), primitives.ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = 4096, "1.2.3"
    request.user_information = [length, implementation, build_role(CT, scp_role=True, scu_role=True)]
    contexts = [
        build_context(CT, [EXPLICIT, "1.2.840.10008.1.2"]),
        build_context("1.2.840.10008.1.1"),
        build_context("1.2.840.10008.5.1.4.1.2.2.1"),
    ]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    request.presentation_context_definition_list = contexts
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    pdu.protocol_version = version
    return bytes(pdu.encode())


def test_storage_and_verification_are_accepted_and_nothing_else() -> None:
    from pynetdicom.pdu import A_ASSOCIATE_AC

    request = associate_request()
    found = negotiate(request, 65536)
    assert isinstance(found, Negotiated)
    assert dict(found.transfer_syntaxes) == {1: EXPLICIT, 3: "1.2.840.10008.1.2"}
    assert found.max_pdu == 4096
    decoded: Any = A_ASSOCIATE_AC()
    decoded.decode(found.answer)
    primitive = decoded.to_primitive()
    assert [one.result for one in primitive.presentation_context_definition_results_list] == [0, 0, 3]
    assert primitive.maximum_length_received == 65536
    assert found.answer[10:42] == request[10:42]
    roles = [(one.scu_role, one.scp_role) for one in primitive.user_information if hasattr(one, "scu_role")]
    assert roles == [(True, True)]


def test_other_protocols_are_rejected() -> None:
    assert negotiate(associate_request(version=2), 65536) is Rejection.PROTOCOL_VERSION
    assert negotiate(associate_request(application="1.2.3"), 65536) is Rejection.APPLICATION_CONTEXT


def test_a_request_that_cannot_be_read_is_an_error() -> None:
    rng, request = random.Random(4), associate_request()
    failed = 0
    for _ in range(60):
        changed = bytearray(request)
        changed[rng.randrange(74, len(changed))] ^= 1 << rng.randrange(8)
        try:
            negotiate(bytes(changed[: rng.randrange(74, len(changed) + 1)]), 65536)
        except ProtocolError:
            failed += 1
    assert failed > 10


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize("seed", range(4))
def test_messages_in_any_fragments_are_stored_whole(bench: Bench, seed: int) -> None:
    rng, path = random.Random(seed), study_files(90 + seed)[0]
    values = []
    for last, data in ((3, store_command(uid_of(path))), (2, data_set(path))):
        cuts = sorted({0, len(data), *(rng.randrange(len(data) + 1) for _ in range(20 * seed))})
        pieces = [data[start:end] for start, end in pairwise(cuts)]
        values += [value(last - 2, piece) for piece in pieces[:-1]] + [value(last, pieces[-1])]
    pdus = []
    while values:
        number = rng.randrange(1, 4)
        pdus.append(p_data(*values[:number]))
        del values[:number]
    stream = b"".join(pdus) + RELEASE
    with bench.associated() as connection:
        at = 0
        while at < len(stream):
            size = rng.choice((1, 7, 500, 100_000)) if seed else len(stream)
            connection.sendall(stream[at : at + size])
            at += size
        assert statuses(answer(connection)) == [0]
    assert bench.ending is Ending.RELEASED
    assert bench.stored(uid_of(path)) == data_set(path)


def test_several_messages_may_come_at_once(bench: Bench) -> None:
    paths = study_files(95)
    echo = command_set(
        AffectedSOPClassUID="1.2.840.10008.1.1", CommandField=0x30, MessageID=1, CommandDataSetType=0x101
    )
    messages = [p_data(value(3, store_command(uid_of(path)))) + p_data(value(2, data_set(path))) for path in paths]
    with bench.associated() as connection:
        connection.sendall(b"".join(messages) + p_data(value(3, echo, context=3)))
        assert [statuses(answer(connection))[0] for _ in range(len(paths) + 1)] == [0] * (len(paths) + 1)
        connection.sendall(ABORT)
    assert bench.ending is Ending.ABORTED
    assert all(bench.stored(uid_of(path)) == data_set(path) for path in paths)


def test_what_is_neither_storage_nor_verification_is_not_recognised(bench: Bench) -> None:
    find = command_set(AffectedSOPClassUID=CT, CommandField=0x20, MessageID=9, CommandDataSetType=1)
    delete = command_set(CommandField=0x150, MessageID=10, CommandDataSetType=0x101)
    cancel = command_set(CommandField=0xFFF, MessageIDBeingRespondedTo=9, CommandDataSetType=0x101)
    no_data = command_set(CommandField=1, MessageID=11, CommandDataSetType=0x101)
    with bench.associated() as connection:
        connection.sendall(p_data(value(3, find), value(2, b"a query")))
        connection.sendall(p_data(value(3, cancel), value(3, delete), value(3, no_data)))
        assert [statuses(answer(connection))[0] for _ in range(3)] == [0x0211, 0x0211, 0xC000]
        connection.sendall(RELEASE)
    assert bench.ending is Ending.RELEASED


def test_a_request_without_identifiers_is_refused(bench: Bench) -> None:
    unnamed = command_set(CommandField=1, MessageID=1, CommandDataSetType=1)
    with bench.associated() as connection:
        connection.sendall(p_data(value(3, unnamed), value(2, b"data")) + RELEASE)
        assert statuses(answer(connection)) == [0xC000]
    assert bench.stored("") is None


def test_responses_fit_the_pdus_of_the_requestor(bench: Bench) -> None:
    path = study_files(96)[0]
    with bench.associated(replace(NEGOTIATED, max_pdu=50)) as connection:
        connection.sendall(p_data(value(3, store_command(uid_of(path))), value(2, data_set(path))))
        command, control = b"", 0
        while not control & 2:
            pdu = answer(connection)
            assert len(pdu) - 6 <= 50
            control = pdu[11]
            command += pdu[12:]
        assert int.from_bytes(command[-2 - 8 - len(uid_of(path)) - len(uid_of(path)) % 2 :][:2], "little") == 0
        connection.sendall(RELEASE)
    assert bench.ending is Ending.RELEASED


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("pdus", "reason"),
    [
        (b"\x09\0\0\0\0\0", AbortReason.UNRECOGNISED_PDU),
        (b"\x01\0\0\0\0\0", AbortReason.UNEXPECTED_PDU),
        (b"\x04\0\x7f\xff\xff\xff", AbortReason.INVALID_PARAMETER),
        (p_data(value(2, b"data without a command")), AbortReason.INVALID_PARAMETER),
        (p_data(value(3, store_command("1.2.3"), context=5)), AbortReason.INVALID_PARAMETER),
        (p_data(value(3, store_command("1.2.3")), value(0, b"x", context=3)), AbortReason.INVALID_PARAMETER),
        (p_data(value(3, store_command("1.2.3")), value(3, store_command("1.2.3"))), AbortReason.INVALID_PARAMETER),
        (p_data(value(3, b"no command set")), AbortReason.INVALID_PARAMETER),
        (p_data(b"\0\0\0\1\1"), AbortReason.INVALID_PARAMETER),
        (p_data(value(3, b"")[:-1] + b"\3\0\0\0\x09"), AbortReason.INVALID_PARAMETER),
        (p_data(value(1, bytes(20_000))), AbortReason.INVALID_PARAMETER),
    ],
    ids=["type", "order", "size", "no command", "context", "other context", "two commands", "command", "short", "long",
         "endless command"],
)  # fmt: skip
def test_what_breaks_the_protocol_is_aborted(bench: Bench, pdus: bytes, reason: AbortReason) -> None:
    with bench.associated() as connection:
        connection.sendall(pdus)
        assert answer(connection) == bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, reason])
    assert bench.ending is Ending.ABORTED
    assert bench.stored("1.2.3") is None


def test_an_association_without_a_message_is_aborted_in_time(bench: Bench) -> None:
    with bench.associated(idle_seconds=0.05) as connection:
        assert answer(connection)[0] == 7
    assert bench.ending is Ending.ABORTED


def test_a_pdu_that_comes_byte_by_byte_is_aborted_in_time(bench: Bench) -> None:
    with bench.associated(pdu_seconds=0.2) as connection:
        connection.sendall(b"\x04\0\0\0\x10\0")
        connection.settimeout(0.05)
        for _ in range(100):
            connection.sendall(b"x")  # each byte comes within the time of a read
            try:
                found = connection.recv(10)
                break
            except TimeoutError:
                continue
        assert found[0] == 7
    assert bench.ending is Ending.ABORTED


def test_an_object_whose_connection_ends_is_not_kept(bench: Bench) -> None:
    path = study_files(97)[0]
    with bench.associated() as connection:
        connection.sendall(p_data(value(3, store_command(uid_of(path))), value(0, data_set(path)[:-10])))
    assert bench.ending is Ending.LOST
    assert bench.stored(uid_of(path)) is None


def test_a_stopped_association_is_aborted_after_its_response(bench: Bench) -> None:
    path = study_files(98)[0]
    with bench.associated() as connection:
        connection.sendall(p_data(value(3, store_command(uid_of(path))), value(2, data_set(path))))
        assert statuses(answer(connection)) == [0]
        bench.association.stop()
        assert answer(connection) == ABORT
    assert bench.ending is Ending.ABORTED
    assert bench.stored(uid_of(path)) == data_set(path)


def test_random_bytes_end_an_association_and_acknowledge_nothing(bench: Bench) -> None:
    rng, path = random.Random(5), study_files(99)[0]
    whole = p_data(value(3, store_command(uid_of(path)))) + p_data(value(2, data_set(path)))
    for _ in range(40):
        changed = bytearray(whole[: rng.randrange(6, len(whole))])
        for _ in range(rng.randrange(3)):
            changed[rng.randrange(min(200, len(changed)))] = rng.randrange(256)
        with bench.associated(pdu_seconds=0.5) as connection:
            connection.sendall(changed)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        assert bench.ending in (Ending.ABORTED, Ending.LOST)
    assert bench.stored(uid_of(path)) is None

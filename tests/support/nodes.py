"""DICOM nodes of the tests, which answer as a test wants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

from ctenrich.delivery.deliverer import Deliverer
from ctenrich.delivery.destination import Destination
from ctenrich.delivery.queue import DeliveryQueue
from ctenrich.delivery.records import Batch


class Node:
    """A Storage SCP with C-FIND: it counts the sends of each object, and keeps those that it answers with success."""

    def __init__(self) -> None:
        self.port = 0
        self.sends: Counter[str] = Counter()
        self.held: dict[str, bytes] = {}
        self.syntaxes: set[str] = set()
        self.associations = 0
        self.answer: Callable[[str], int] = lambda _: 0
        """SOP Instance UID -> status."""
        self.loses: Callable[[str], bool] = lambda _: False
        """Whether an object that was accepted is forgotten."""
        self.aborts: Callable[[str], bool] = lambda _: False
        """Whether the association is aborted instead of an answer."""

    @property
    def address(self) -> str:
        """Address of the node."""
        return f"dicom://127.0.0.1:{self.port}/NODE"

    def stored(self, event: Any) -> int:
        """Handle a C-STORE."""
        uid = str(event.request.AffectedSOPInstanceUID)
        self.sends[uid] += 1
        if self.aborts(uid):
            event.assoc.abort()
            return 0xC000
        self.syntaxes.add(str(event.context.transfer_syntax))
        status = self.answer(uid)
        if (status == 0 or status >> 12 == 0xB) and not self.loses(uid):
            self.held[uid] = event.encoded_dataset(include_meta=False)
        return status

    def found(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        """Handle a C-FIND."""
        if event.identifier.SOPInstanceUID in self.held:
            answer = Dataset()
            answer.QueryRetrieveLevel, answer.SOPInstanceUID = "IMAGE", event.identifier.SOPInstanceUID
            yield 0xFF00, answer


@contextmanager
def node(*, query: bool = True, port: int = 0, classes: tuple[str, ...] = ()) -> Iterator[Node]:
    """Run a node in threads of this process; `classes` limits the SOP classes that it accepts."""
    from pynetdicom import AE, AllStoragePresentationContexts, evt
    from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

    made, entity = Node(), AE(ae_title="NODE")
    for context in AllStoragePresentationContexts:
        if not classes or str(context.abstract_syntax) in classes:
            entity.add_supported_context(context.abstract_syntax)
    if query:
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)

    def established(_: Any) -> None:
        made.associations += 1

    handlers = [(evt.EVT_C_STORE, made.stored), (evt.EVT_C_FIND, made.found), (evt.EVT_ACCEPTED, established)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    made.port = server.server_address[1]
    try:
        yield made
    finally:
        server.shutdown()


class Post:
    """A queue with a clock of its own, a deliverer, and what it wrote to the audit log."""

    def __init__(self, folder: Path) -> None:
        self.path, self.now = folder / "deliveries.sqlite", 1000.0
        self.events: list[tuple[str, dict[str, object]]] = []
        self.queue = DeliveryQueue(self.path, clock=lambda: self.now)
        self.deliverer = Deliverer(self.path, self.audit, clock=lambda: self.now)

    def audit(self, event: str, **values: object) -> None:
        """Take an event."""
        self.events.append((event, values))

    def add(self, destination: Destination, *files: Path, case: int = 1, revision: int = 1, **values: Any) -> None:
        """Queue files."""
        self.queue.add(Batch(case=case, revision=revision, destination=destination, files=files, **values))

    def work(self, seconds: float = 0.0) -> dict[str, int]:
        """Let time pass, work once on each destination that is due, and return the numbers of objects by state."""
        self.now += seconds
        for destination in self.queue.due():
            self.deliverer.work_on(self.queue, destination)
        self.queue.finish_batches()
        return self.states()

    def states(self) -> dict[str, int]:
        """Numbers of objects by state."""
        rows = self.queue.database.rows("SELECT state, count(*) AS n FROM objects GROUP BY state")
        return {row["state"]: row["n"] for row in rows}

    def column(self, name: str) -> list[Any]:
        """A column of the objects, in the order in which they were queued."""
        return [row[name] for row in self.queue.database.rows("SELECT * FROM objects ORDER BY id")]


def changed_copy(path: Path, target: Path) -> Path:
    """A copy of an object with other bytes and the same UIDs."""
    data = dcmread(path)
    data.SeriesDescription = "other"
    data.save_as(target)
    return target

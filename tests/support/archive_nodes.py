"""A DICOM node of the tests that answers C-FIND, C-GET and C-MOVE, rightly or as a test wants."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from pydicom.dataset import Dataset

from tests.support.small_series import Small, small_slice

LEVELS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


def series_of(small: Small | None = None, **elements: Any) -> list[Dataset]:
    """Slices of a small series, with other values of some elements."""
    made = [small_slice(small or Small(), k) for k in range((small or Small()).count)]
    for number, data in enumerate(made):
        for keyword, value in elements.items():
            setattr(data, keyword, value(number) if callable(value) else value)
    return made


class ArchiveNode:
    """What the node holds, and how it differs from a good one."""

    def __init__(self, held: Sequence[Dataset]) -> None:
        self.held = list(held)
        self.port = 0
        self.hidden: set[str] = set()
        """Keywords that C-FIND does not return."""
        self.counts: dict[str, int] = {}
        """Values of counting attributes that are wrong."""
        self.changes: dict[str, str] = {}
        """Values that C-FIND returns in place of the right ones."""
        self.most = 0
        """Largest number of answers, beyond which they are cut without a word; 0: none."""
        self.most_status = 0
        """Status with which answers that are cut end."""
        self.find_status = 0
        self.get_status = 0
        self.sends: Callable[[Dataset], Dataset | None] = lambda data: data
        """What is sent in place of an object; None: nothing."""
        self.aborts_after = -1
        """Objects after which the association is aborted, once; -1: never."""
        self.queries: list[tuple[str, str]] = []
        self.requests: list[tuple[str, int]] = []
        """Level and number of UIDs of each C-GET."""
        self.destinations: dict[str, tuple[int, ssl.SSLContext | None]] = {}
        """C-MOVE: application entity title -> port on this machine, and TLS with which it is reached."""

    @property
    def address(self) -> str:
        """Address of the node."""
        return f"dicom://127.0.0.1:{self.port}/NODE"

    def found(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        """Handle a C-FIND."""
        asked = event.identifier
        level = asked.QueryRetrieveLevel
        self.queries.append((level, str(asked.get("StudyDate", ""))))
        rows: dict[str, Dataset] = {}
        for data in self.held:
            if matches(asked, data):
                rows.setdefault(data[LEVELS[level]].value, data)
        for number, (uid, data) in enumerate(rows.items()):
            if self.most and number >= self.most:
                if self.most_status:
                    yield self.most_status, None
                    return
                break
            yield 0xFF00, self._answer(asked, level, uid, data)
        if self.find_status:
            yield self.find_status, None

    def _answer(self, asked: Dataset, level: str, uid: str, data: Dataset) -> Dataset:
        answer = Dataset()
        answer.QueryRetrieveLevel = level
        for element in asked:
            if element.keyword in data and element.keyword not in self.hidden:
                setattr(answer, element.keyword, self.changes.get(element.keyword, data[element.keyword].value))
        inside = [one for one in self.held if one[LEVELS[level]].value == uid]
        counts = {
            "NumberOfStudyRelatedSeries": len({one.SeriesInstanceUID for one in inside}),
            "NumberOfSeriesRelatedInstances": len(inside),
            **self.counts,
        }
        for keyword, number in counts.items():
            if keyword in asked and keyword not in self.hidden:
                setattr(answer, keyword, number)
        return answer

    def got(self, event: Any) -> Iterator[Any]:
        """Handle a C-GET."""
        asked = event.identifier
        uids = asked.get("SOPInstanceUID") or []
        self.requests.append((asked.QueryRetrieveLevel, 1 if isinstance(uids, str) else len(uids)))
        if self.get_status:
            yield 1
            yield self.get_status, None
            return
        found = [one for one in self.held if matches(asked, one)]
        objects = [sent for one in found if (sent := self.sends(deepcopy(one))) is not None]
        yield len(objects)
        for number, data in enumerate(objects):
            if number == self.aborts_after:
                self.aborts_after = -1
                event.assoc.abort()
                return
            yield 0xFF00, data

    def moved(self, event: Any) -> Iterator[Any]:
        """Handle a C-MOVE."""
        from pynetdicom import build_context
        from pynetdicom.sop_class import CTImageStorage

        if event.move_destination not in self.destinations:
            yield None, None
            return
        port, tls = self.destinations[event.move_destination]
        yield "127.0.0.1", port, {
            "contexts": [build_context(CTImageStorage)], "tls_args": (tls, "127.0.0.1") if tls else None,
        }  # fmt: skip
        found = [one for one in self.held if matches(event.identifier, one)]
        objects = [sent for one in found if (sent := self.sends(deepcopy(one))) is not None]
        yield len(objects)
        yield from ((0xFF00, data) for data in objects)


def matches(asked: Dataset, data: Dataset) -> bool:
    """Whether an object matches the keys of a request."""
    for element in asked:
        value = element.value
        if element.keyword in ("QueryRetrieveLevel", "SpecificCharacterSet") or value in (None, "", []):
            continue
        have = str(data.get(element.keyword, ""))
        if element.keyword == "StudyDate":
            first, _, last = str(value).partition("-")
            if not (first or "0") <= have <= (last or "9"):
                return False
        elif have not in ([value] if isinstance(value, str) else list(map(str, value))):
            return False
    return True


@contextmanager
def archive_node(
    held: Sequence[Dataset], *, get: bool = True, tls: ssl.SSLContext | None = None
) -> Iterator[ArchiveNode]:
    """Run a node in threads of this process; without `get` it offers no C-GET."""
    from pynetdicom import AE, evt
    from pynetdicom.sop_class import (
        CTImageStorage,
        RTDoseStorage,
        RTPlanStorage,
        RTStructureSetStorage,
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelGet,
        StudyRootQueryRetrieveInformationModelMove,
    )

    made, entity = ArchiveNode(held), AE(ae_title="NODE")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
    if get:
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
        for name in (CTImageStorage, RTStructureSetStorage, RTPlanStorage, RTDoseStorage):
            entity.add_supported_context(name, scu_role=True, scp_role=True)
    handlers = [(evt.EVT_C_FIND, made.found), (evt.EVT_C_GET, made.got), (evt.EVT_C_MOVE, made.moved)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=tls)
    made.port = server.server_address[1]
    try:
        yield made
    finally:
        server.shutdown()

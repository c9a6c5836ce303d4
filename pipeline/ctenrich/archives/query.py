"""Query a DICOM node with C-FIND: studies, series and instances (PS3.4 annex C, Study Root)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

from pydicom.dataset import Dataset

from ctenrich.archives.archive import SERIES_ATTRIBUTES, ArchiveSearch, ArchiveSeries, series_url
from ctenrich.archives.association import associate, open_entity
from ctenrich.archives.nodes import Node
from ctenrich.errors import CtenrichError, TransientError, UsageError, count
from ctenrich.progress import Progress
from ctenrich.reasons import Reason

__all__ = ["NodeQuery", "find_node_series", "node_query", "text_of"]

_PENDING = (0xFF00, 0xFF01)
_MOST = 100_000
"""Answers to one query."""
_SPLIT = 100
"""Answers from which on a range of study dates is divided: nodes limit their answers, and rarely report it."""
_WILDCARDS = frozenset("*?\\")
_STUDY_KEYS = ("StudyInstanceUID", "PatientID", "StudyDate", "PatientSex", "PatientAge", "ModalitiesInStudy",
               "NumberOfStudyRelatedSeries")  # fmt: skip
_SERIES_KEYS = ("SeriesInstanceUID", "Modality", "SeriesDescription", "BodyPartExamined", "Manufacturer",
                "ManufacturerModelName", "NumberOfSeriesRelatedInstances")  # fmt: skip
_IMAGE_KEYS = ("SOPInstanceUID", "SOPClassUID", "ImageType", "SliceThickness")


class NodeQuery:
    """Queries on one association.

    Parameters
    ----------
    node : Node
        For messages.
    association : Association
        Established, with the Study Root C-FIND accepted.
    """

    def __init__(self, node: Node, association: Any) -> None:
        self._node = node
        self.title = node.called
        self._association = association

    def find(self, level: str, keys: Mapping[str, str]) -> list[Dataset]:
        """Return the answers to a query.

        Parameters
        ----------
        level : str
            STUDY, SERIES or IMAGE.
        keys : mapping
            Keyword -> value to match; empty: to be returned.

        Returns
        -------
        list of Dataset
            Identifiers, as the node gives them.

        Raises
        ------
        TransientError
            CATALOG_UNREACHABLE where the query fails or ends early.
        """
        from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # heavy adapter
            StudyRootQueryRetrieveInformationModelFind,
        )

        query = Dataset()
        query.QueryRetrieveLevel = level
        if not all(value.isascii() for value in keys.values()):
            query.SpecificCharacterSet = "ISO_IR 192"
        for keyword, value in keys.items():
            setattr(query, keyword, value)
        found: list[Dataset] = []
        last: int | None = None
        try:
            for status, identifier in self._association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
                last = getattr(status, "Status", None)
                if last in _PENDING:
                    if identifier is None:
                        raise self._failed("an answer cannot be decoded")
                    found.append(identifier)
                if len(found) > _MOST:
                    break
        except RuntimeError as error:  # the association has ended
            raise self._failed("the association ended") from error
        if len(found) > _MOST:
            raise self._failed(f"more than {_MOST} answers")
        if last != 0:
            raise self._failed(f"status {last:04X}" if last is not None else "no answer")
        return found

    def instances(self, study: str, series: str) -> list[Dataset]:
        """Return an answer per instance of a series, with `SOPInstanceUID` and `SOPClassUID`, sorted by UID.

        Parameters
        ----------
        study, series : str
            Study and Series Instance UID.

        Returns
        -------
        list of Dataset
            Without repetitions. Answers of other series, and without a SOP Instance UID, are left out.
        """
        keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series, **dict.fromkeys(_IMAGE_KEYS, "")}
        rows = {
            text_of(row, "SOPInstanceUID"): row
            for row in self.find("IMAGE", keys)
            if text_of(row, "SeriesInstanceUID") in ("", series)
        }
        return [rows[uid] for uid in sorted(rows) if uid]

    def _failed(self, why: str) -> TransientError:
        return TransientError(Reason.CATALOG_UNREACHABLE, f"a query to the node {self._node} failed: {why}")


@contextmanager
def node_query(node: Node, timeout: float) -> Iterator[NodeQuery]:
    """Open an association for queries.

    Parameters
    ----------
    node : Node
    timeout : float
        Seconds to wait for an answer.

    Yields
    ------
    NodeQuery

    Raises
    ------
    TransientError
        CATALOG_UNREACHABLE: the node does not accept the association, or no queries.
    UsageError
        MISSING_EXTRA without pynetdicom; as :meth:`ctenrich.archives.nodes.TlsFiles.context`.
    """
    entity = open_entity(node.calling)
    from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

    entity.dimse_timeout = entity.network_timeout = timeout
    entity.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    association = associate(entity, node)
    try:
        if not association.is_established:
            hint = "check address, port and application entity titles, and whether the node answers C-FIND"
            raise TransientError(Reason.CATALOG_UNREACHABLE, f"the node {node} did not accept a query", hint)
        yield NodeQuery(node, association)
    finally:
        if association.is_established:
            association.release()


def find_node_series(
    query: NodeQuery, root: str, search: ArchiveSearch, notes: list[str], progress: Progress
) -> list[ArchiveSeries]:
    """Search a node for series: its studies, the series of each, and the instances of each that is wanted.

    Parameters
    ----------
    query : NodeQuery
        Where to ask.
    root : str
        Address of the node, from which the URLs are made.
    search : ArchiveSearch
        With patients or study dates.
    notes : list of str
        Gets what the user should know of the answers.
    progress : Progress
        Receives one step per study.

    Returns
    -------
    list of ArchiveSeries
        Sorted by UID.

    Raises
    ------
    UsageError
        BAD_PARAMETER where neither patients nor dates restrict the search, or a Patient ID has wildcards.
    TransientError
        CATALOG_UNREACHABLE.
    """
    studies = _find_studies(query, search)
    found: dict[str, ArchiveSeries] = {}
    unsafe = fewer = 0
    progress.start("query", len(studies))
    for uid, study in sorted(studies.items()):
        progress.advance("query")
        modalities = study.get("ModalitiesInStudy")
        listed = {modalities} if isinstance(modalities, str) else set(modalities or ())
        if listed and not listed.intersection(search.modalities):
            continue
        rows = query.find("SERIES", {"StudyInstanceUID": uid, **dict.fromkeys(_SERIES_KEYS, "")})
        fewer += len({text_of(row, "SeriesInstanceUID") for row in rows}) < _number(study, "NumberOfStudyRelatedSeries")
        for row in rows:
            series = text_of(row, "SeriesInstanceUID")
            if text_of(row, "Modality") not in search.modalities or (search.series and series not in search.series):
                continue
            try:
                found[series] = _series_of(query, root, study, row)
            except CtenrichError as error:
                if error.reason is not Reason.UNSAFE_IDENTIFIER:
                    raise
                unsafe += 1
    progress.finish("query")
    if fewer:
        notes.append(f"{count(fewer, 'study')}: the node lists fewer series than NumberOfStudyRelatedSeries states")
    if unsafe:
        notes.append(f"{count(unsafe, 'series')} left out: the UID is not a DICOM UID")
    return [found[uid] for uid in sorted(found)]


def _find_studies(query: NodeQuery, search: ArchiveSearch) -> dict[str, Dataset]:
    if not search.patients and not (search.first_date or search.last_date):
        hint = "--param patients=ID, or --from-date and --to-date"
        raise UsageError(Reason.BAD_PARAMETER, "a node is not searched as a whole: name patients or study dates", hint)
    if any(_WILDCARDS & set(patient) for patient in search.patients):
        raise UsageError(Reason.BAD_PARAMETER, "a Patient ID with *, ? or \\ cannot be searched for in a node")
    keys = dict.fromkeys(_STUDY_KEYS, "")
    if search.patients:
        dates = f"{search.first_date}-{search.last_date}" if search.first_date or search.last_date else ""
        rows = [
            row
            for patient in search.patients
            for row in query.find("STUDY", {**keys, "PatientID": patient, "StudyDate": dates})
            if text_of(row, "PatientID") == patient
        ]
    else:
        first = _date(search.first_date or "19000101")
        last = _date(search.last_date) if search.last_date else date.today() + timedelta(1)
        rows = _in_parts(query, keys, first, last)
    return {uid: row for row in rows if (uid := text_of(row, "StudyInstanceUID"))}


def _in_parts(query: NodeQuery, keys: Mapping[str, str], first: date, last: date) -> list[Dataset]:
    """Studies of a range of dates; one with many answers, or that fails, is divided, down to single days."""
    if first > last:
        return []
    try:
        rows = query.find("STUDY", {**keys, "StudyDate": f"{first:%Y%m%d}-{last:%Y%m%d}"})
        if len(rows) < _SPLIT or first == last:
            return rows
    except TransientError:
        if first == last:
            raise
    middle = first + (last - first) // 2
    return [*_in_parts(query, keys, first, middle), *_in_parts(query, keys, middle + timedelta(1), last)]


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(Reason.BAD_PARAMETER, f"{text[:20]!r} is not a date", "write 2020-01-31 or 20200131") from None


def _series_of(query: NodeQuery, root: str, study: Dataset, row: Dataset) -> ArchiveSeries:
    uids = text_of(study, "StudyInstanceUID"), text_of(row, "SeriesInstanceUID")
    url = series_url(root, *uids)
    images = query.instances(*uids)
    classes = {text_of(image, "SOPClassUID") for image in images}
    types = {tuple(map(str, image.get("ImageType") or ())) for image in images}
    known_thickness = [value for image in images if (value := _float(image, "SliceThickness")) is not None]
    known = {keyword: text_of(row, keyword) or text_of(study, keyword) for keyword in SERIES_ATTRIBUTES}
    return ArchiveSeries(
        collection_id=query.title,
        patient_id=text_of(study, "PatientID"),
        study_instance_uid=uids[0],
        series_instance_uid=uids[1],
        modality=text_of(row, "Modality"),
        url=url,
        instances=max(len(images), _number(row, "NumberOfSeriesRelatedInstances")) or None,
        sop_class_uid=classes.pop() if len(classes) == 1 else "",
        attributes={keyword: value for keyword, value in known.items() if value},
        image_type=types.pop() if len(types) == 1 else (),
        slice_thickness=max(known_thickness) if known_thickness and len(known_thickness) == len(images) else None,
    )


def text_of(row: Dataset, keyword: str) -> str:
    """Return a value of an identifier as text; empty where it is absent.

    Parameters
    ----------
    row : Dataset
        Identifier of an answer.
    keyword : str
        Keyword of the attribute.

    Returns
    -------
    str
    """
    value = row.get(keyword)
    return "" if value is None else str(value).strip(" \0")


def _number(row: Dataset, keyword: str) -> int:
    text = text_of(row, keyword)
    return int(text) if text.isascii() and text.isdigit() else 0


def _float(row: Dataset, keyword: str) -> float | None:
    try:
        return float(text_of(row, keyword))
    except ValueError:
        return None

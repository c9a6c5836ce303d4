"""Read-only DICOMweb service of one run: search (QIDO-RS), metadata, frames and instances (WADO-RS) of CT and SEG."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.view.contents import RunView, Shown
from ctenrich.workspace import check_uid

__all__ = ["WINDOW", "Answer", "DicomWeb", "frame_of"]

_JSON = "application/dicom+json"
_CT_KEYS = """
SpecificCharacterSet SOPClassUID SOPInstanceUID SeriesInstanceUID StudyInstanceUID FrameOfReferenceUID Modality
InstanceNumber SeriesNumber SeriesDescription StudyDescription StudyDate StudyTime SeriesDate SeriesTime PatientID
Rows Columns PhotometricInterpretation BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel
PixelSpacing ImageOrientationPatient ImagePositionPatient ImageType WindowCenter WindowWidth RescaleIntercept
RescaleSlope RescaleType SliceThickness SpacingBetweenSlices NumberOfFrames PixelPaddingValue
"""
"""Attributes of a slice that the viewer needs; names, comments and private values are not sent."""
WINDOW = (40, 400)
"""Window Center and Window Width of a soft tissue window, HU: sent in the metadata of slices that state none."""
_STUDY = "StudyInstanceUID StudyDate StudyTime StudyDescription PatientID SpecificCharacterSet"
_SERIES = "StudyInstanceUID SeriesInstanceUID Modality SeriesNumber SeriesDescription SeriesDate SeriesTime"
_INSTANCE = "StudyInstanceUID SeriesInstanceUID SOPInstanceUID SOPClassUID InstanceNumber Rows Columns NumberOfFrames"
_BOUNDARY = "ctenrich-part"


@dataclass(frozen=True)
class Answer:
    """Body and Content-Type of a response."""

    content: bytes
    kind: str


class DicomWeb:
    """Answers requests below ``studies``.

    Parameters
    ----------
    view : RunView
        The run.

    Notes
    -----
    The parts of PS3.18 sections 10.4 (retrieve) and 10.6 (search) that a viewer uses. Instances are sent as written; CT
    metadata is limited to what is needed to draw a slice. Metadata alone differ from the files in two places: slices
    without a window get one, and the series description of a SEG is the name of its product. A study holds the run's CT
    series and their SEGs.
    """

    def __init__(self, view: RunView) -> None:
        self.view = view
        self._owners: dict[str, str] = {}

    def answer(self, words: Sequence[str], asked: Mapping[str, Sequence[str]]) -> Answer:
        """Answer a GET.

        Parameters
        ----------
        words : sequence of str
            Parts of the path after the root: ``studies``, a Study Instance UID, ...
        asked : mapping
            The query: attribute keyword or tag -> values.

        Returns
        -------
        Answer

        Raises
        ------
        UsageError
            NOT_FOUND if the run has no such resource.
        UnsafeInputError
            UNSAFE_IDENTIFIER if a part that should be a UID is not one.
        """
        uids = [check_uid(w) for w in words[1:6:2]]
        shape = ["{}" if k % 2 else w for k, w in enumerate(words)]
        routes: dict[str, Callable[[], Answer]] = {
            "studies": lambda: self._studies(asked),
            "studies/{}/series": lambda: self._series(uids[0], asked),
            "studies/{}/series/{}/metadata": lambda: self._metadata(uids[1]),
            "studies/{}/series/{}/instances/{}/metadata": lambda: self._metadata(uids[1], uids[2]),
            "studies/{}/series/{}/instances": lambda: self._instances(uids[1]),
            "studies/{}/series/{}/instances/{}": lambda: self._instance(uids[1], uids[2]),
            "studies/{}/series/{}/instances/{}/frames/{}": lambda: self._frames(uids[1], uids[2], words[7]),
        }
        found = routes.get("/".join(shape))
        if found is None:
            raise _not_found()
        return found()

    # ------------------------------------------------------------ search

    def _studies(self, asked: Mapping[str, Sequence[str]]) -> Answer:
        wanted = _asked(asked, "StudyInstanceUID", "0020000D")
        uids = [s for value in wanted for s in self.view.in_study(check_uid(value))] if wanted else self.view.series
        rows: dict[str, dict[str, Any]] = {}
        for uid in uids:
            study = self.view.record(uid).study_instance_uid
            held = [uid, *(s.item.series_instance_uid for s in self.view.segmentations(uid))]
            if study not in rows:
                first = _pick_attributes(_slice_metadata(self.view.slices(uid)[0]), _STUDY)
                rows[study] = {**first, **_json_attribute("ModalitiesInStudy", "CS", "CT")}
                rows[study].update(_json_attribute("NumberOfStudyRelatedSeries", "IS", 0))
                rows[study].update(_json_attribute("NumberOfStudyRelatedInstances", "IS", 0))
            rows[study]["00201206"]["Value"][0] += len(held)
            rows[study]["00201208"]["Value"][0] += len(self.view.slices(uid)) + len(held) - 1
            if len(held) > 1:
                rows[study].update(_json_attribute("ModalitiesInStudy", "CS", "CT", "SEG"))
        return _json_answer(_result_page(list(rows.values()), asked))

    def _series(self, study: str, asked: Mapping[str, Sequence[str]]) -> Answer:
        wanted = _asked(asked, "SeriesInstanceUID", "0020000E")
        rows = []
        for uid in self.view.in_study(study):
            slices = self.view.slices(uid)
            shown = [(uid, _slice_metadata(slices[0]), len(slices))]
            segs = self.view.segmentations(uid)
            shown += [(seg.item.series_instance_uid, _segmentation_metadata(seg), 1) for seg in segs]
            for series, metadata, count in shown:
                if not wanted or series in wanted:
                    counted = _json_attribute("NumberOfSeriesRelatedInstances", "IS", count)
                    rows.append({**_pick_attributes(metadata, _SERIES), **counted})
        return _json_answer(_result_page(rows, asked))

    def _instances(self, series: str) -> Answer:
        return _json_answer([_pick_attributes(m, _INSTANCE) for m in self._held(series)])

    # ------------------------------------------------------------ retrieve

    def _metadata(self, series: str, instance: str = "") -> Answer:
        held = self._held(series)
        chosen = [m for m in held if not instance or m["00080018"]["Value"] == [instance]]
        if not chosen:
            raise _not_found()
        return _json_answer(chosen)

    def _instance(self, series: str, instance: str) -> Answer:
        content = self._instance_file(series, instance).read_bytes()
        return _multipart([content], "application/dicom", "application/dicom")

    def _frames(self, series: str, instance: str, numbers: str) -> Answer:
        path = self._instance_file(series, instance)
        parts = numbers.split(",")
        if not all(n.isdigit() for n in parts):
            raise _not_found()
        data = _opened(path, path.stat().st_mtime_ns)
        kind = f"application/octet-stream; transfer-syntax={data.file_meta.TransferSyntaxUID}"
        return _multipart([frame_of(data, int(n)) for n in parts], "application/octet-stream", kind)

    # ------------------------------------------------------------ finding

    def _held(self, series: str) -> list[dict[str, Any]]:
        """Metadata of all instances of a CT series or of a SEG."""
        if series in self.view.series:
            return [_slice_metadata(path) for path in self.view.slices(series)]
        return [_segmentation_metadata(self._segmentation(series))]

    def _segmentation(self, series: str) -> Shown:
        known = self._owners.get(series)
        for uid in [known] if known else self.view.series:
            for shown in self.view.segmentations(uid):
                if shown.item.series_instance_uid == series:
                    self._owners[series] = uid
                    return shown
        raise _not_found()

    def _instance_file(self, series: str, instance: str) -> Path:
        if series in self.view.series:
            for one in self.view.record(series).slices:
                if one.sop_instance_uid == instance:
                    return self.view.workspace.resolve(series, one.path)
            raise _not_found()
        shown = self._segmentation(series)
        if shown.item.sop_instance_uid != instance:
            raise _not_found()
        return shown.path


def frame_of(data: Any, number: int) -> bytes:
    """Extract the pixels of one frame in the transfer syntax of its file.

    Parameters
    ----------
    data : pydicom.Dataset
        An image, pixel data included.
    number : int
        Frame number, from 1.

    Returns
    -------
    bytes
        Compressed frames are returned unchanged. Frames of one bit per pixel may start within a byte of the file
        (PS3.5 8.2); here they start at a byte, with the first pixel in the lowest bit.

    Raises
    ------
    UsageError
        NOT_FOUND if there is no such frame.
    """
    import numpy as np
    from pydicom.encaps import get_frame

    count = int(data.get("NumberOfFrames") or 1)
    if not 1 <= number <= count or "PixelData" not in data:
        raise UsageError(Reason.NOT_FOUND, "the object has no such frame")
    if data.file_meta.TransferSyntaxUID.is_compressed and data["PixelData"].is_undefined_length:
        return bytes(get_frame(data.PixelData, number - 1, number_of_frames=count))
    pixels = int(data.Rows) * int(data.Columns) * int(data.get("SamplesPerPixel") or 1)
    if int(data.BitsAllocated) > 1:
        size = pixels * int(data.BitsAllocated) // 8
        return bytes(data.PixelData[(number - 1) * size : number * size])
    raw = np.frombuffer(data.PixelData, np.uint8)
    start = (number - 1) * pixels
    bits = np.unpackbits(raw[start // 8 : (start + pixels + 7) // 8], bitorder="little")
    return np.packbits(bits[start % 8 : start % 8 + pixels], bitorder="little").tobytes()


# ---------------------------------------------------------------- reading


@lru_cache(maxsize=4)
def _opened(path: Path, changed: int) -> Any:
    """Read a whole file; cached, since the viewer requests the frames of a SEG one after another."""
    import pydicom

    return pydicom.dcmread(path)


def _slice_metadata(path: Path) -> dict[str, Any]:
    return _metadata_of(path, path.stat().st_mtime_ns, True)


def _segmentation_metadata(shown: Shown) -> dict[str, Any]:
    """Metadata of a SEG, described by its product: OHIF's lists cut a description after its first words."""
    found = _metadata_of(shown.path, shown.path.stat().st_mtime_ns, False)
    return {**found, **_json_attribute("SeriesDescription", "LO", shown.name)}


@lru_cache(maxsize=4096)
def _metadata_of(path: Path, changed: int, short: bool) -> dict[str, Any]:
    """Convert a file without its pixels to DICOM JSON (PS3.18 F)."""
    import pydicom

    tags: list[Any] | None = list(_CT_KEYS.split()) if short else None
    data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
    made: dict[str, Any] = data.to_json_dict(suppress_invalid_tags=True)
    made.update(_json_attribute("AvailableTransferSyntaxUID", "UI", str(data.file_meta.TransferSyntaxUID)))
    stated = _pick_attributes(made, "WindowCenter WindowWidth")
    if short and not (len(stated) == 2 and all(one.get("Value") for one in stated.values())):
        for keyword, value in zip(("WindowCenter", "WindowWidth"), WINDOW, strict=True):
            made.update(_json_attribute(keyword, "DS", value))
    return made


def _pick_attributes(metadata: Mapping[str, Any], keywords: str) -> dict[str, Any]:
    from pydicom.datadict import tag_for_keyword

    tags = [f"{tag_for_keyword(k):08X}" for k in keywords.split()]
    return {tag: metadata[tag] for tag in tags if tag in metadata}


def _json_attribute(keyword: str, vr: str, *values: str | int) -> dict[str, Any]:
    from pydicom.datadict import tag_for_keyword

    return {f"{tag_for_keyword(keyword):08X}": {"vr": vr, "Value": list(values)}}


# ---------------------------------------------------------------- answers


def _asked(asked: Mapping[str, Sequence[str]], *names: str) -> list[str]:
    """Values of an attribute in a search, by keyword or tag; UIDs may be separated by commas."""
    return [v for name in names for text in asked.get(name, ()) for v in text.replace("\\", ",").split(",") if v]


def _result_page(rows: list[dict[str, Any]], asked: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Apply `offset` and `limit` of a search."""
    numbers = [(asked.get(name) or ["0"])[0] for name in ("offset", "limit")]
    offset, limit = (int(n) if n.isdigit() else 0 for n in numbers)
    return rows[offset : offset + limit if limit else None]


def _json_answer(rows: list[dict[str, Any]]) -> Answer:
    return Answer(json.dumps(rows).encode(), _JSON)


def _multipart(parts: Sequence[bytes], kind: str, part_kind: str) -> Answer:
    head = f"--{_BOUNDARY}\r\nContent-Type: {part_kind}\r\n\r\n".encode()
    body = b"".join(head + part + b"\r\n" for part in parts) + f"--{_BOUNDARY}--\r\n".encode()
    return Answer(body, f'multipart/related; type="{kind}"; boundary={_BOUNDARY}')


def _not_found() -> UsageError:
    return UsageError(Reason.NOT_FOUND, "the run has no such resource")

"""Find the structure set of a series among its companions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctenrich.contours.findings import contour_issue
from ctenrich.contours.ownership import Elsewhere, rois_of_other_series, several_series
from ctenrich.contours.rtstruct import StructureSet, link_to, load_contours
from ctenrich.dicom.quiet import quiet
from ctenrich.dicom.reader import open_dicom
from ctenrich.dicom.sop_classes import RT_STRUCTURE_SET
from ctenrich.dicom.values import text as text_of
from ctenrich.errors import CtenrichError, InputError
from ctenrich.reasons import Reason
from ctenrich.records import CompanionLink, Issue, Severity, SortedSeries

__all__ = ["Companions", "LinkedStructures", "read_companions"]

_OTHER_KIND = re.compile(r"the (?!RTSTRUCT )\w+ that belongs ")
"""Messages about companions that are no structure sets."""
_UNLINKED = ("companion.several", "companion.other_series")
"""Rules of the selection's notes on structure sets that were not given to the series."""


@dataclass(frozen=True, kw_only=True)
class LinkedStructures:
    """A structure set that belongs to a series."""

    structures: StructureSet
    link: CompanionLink
    """How it is linked to the series."""
    elsewhere: Elsewhere
    """Its ROIs that were drawn on another series."""

    @property
    def rank(self) -> tuple[bool, str, str]:
        """Linked by reference before frame of reference, then the newest."""
        return self.link is CompanionLink.REFERENCE, self.structures.stamp, self.structures.sop_instance_uid


@dataclass
class Companions:
    """The structure sets among the companions of a series."""

    found: list[LinkedStructures] = field(default_factory=list)
    elsewhere: list[tuple[StructureSet, Elsewhere]] = field(default_factory=list)
    """Structure sets all of whose ROIs were drawn on other series, or on one of several that cannot be told apart."""
    refusals: list[str] = field(default_factory=list)
    """Why structure sets were not taken for the series."""
    failure: InputError | None = None
    """Error of the first companion that is or may be a structure set and cannot be read."""
    issues: list[Issue] = field(default_factory=list)
    """Unreadable companions, structure sets of other series, structure sets that were not chosen."""

    def add_failure(self, path: Path, error: InputError, label: str) -> None:
        """Keep that a companion cannot be read; only one that may be a structure set counts as one.

        Parameters
        ----------
        path : Path
            The file.
        error : InputError
            What reading it raised.
        label : str
            Name of the companion in the message.
        """
        self.issues.append(contour_issue("contours.unreadable", Severity.WARNING, label, error.message))
        modality = _stated_modality(path)
        if self.failure is None and modality in {"", "RTSTRUCT"}:
            known = "there is an RT Structure Set for the series, but it"
            subject = known if modality else "a companion, which may be the RT Structure Set of the series,"
            self.failure = type(error)(error.reason, f"{subject} cannot be used: {error.message}", error.hint)

    def choose(self, series: SortedSeries) -> LinkedStructures:
        """Choose the structure set of a series.

        Parameters
        ----------
        series : SortedSeries
            Its issues tell about structure sets that were not given to it, or could not be fetched.

        Returns
        -------
        LinkedStructures

        Raises
        ------
        InputError
            The reason of a structure set that cannot be read or could not be fetched, NO_REFERENCE if all belong to
            other series, NO_EXPERT if there is none.
        """
        if not self.found:
            raise self._absence(series)
        self.found.sort(key=lambda one: one.rank)
        *others, chosen = self.found
        for other in others:
            text = "another structure set of this series was chosen (tied by reference first, then the newest)"
            uid = other.structures.sop_instance_uid
            self.issues.append(contour_issue("contours.other", Severity.NOTE, uid, text))
        return chosen

    def _absence(self, series: SortedSeries) -> CtenrichError:
        """Damage first: a structure set that exists and cannot be read or fetched is not absent."""
        lost = [i.message for i in series.issues if i.rule == "fetch.companion" and not _OTHER_KIND.match(i.message)]
        unlinked = [i.message for i in series.issues if i.rule in _UNLINKED]
        others = list(dict.fromkeys([*unlinked, *self.refusals]))
        if self.failure is not None:
            return InputError(self.failure.reason, "; ".join([self.failure.message, *others]), self.failure.hint)
        if lost:
            hint = "remove the cause, then ctenrich retry"
            return InputError(_reason_in(lost[0]), "; ".join([*lost, *others]), hint)
        if others:
            return InputError(Reason.NO_REFERENCE, "; ".join(others))
        return InputError(Reason.NO_EXPERT, "the series has no RT Structure Set", "expert needs an RTSTRUCT companion")


def _stated_modality(path: Path) -> str:
    """Modality of a file that cannot be read as a whole; empty if it cannot be found either."""
    try:
        with quiet(), open_dicom(path, tags=("Modality",)) as parsed:
            media = text_of(parsed.dataset.file_meta, "MediaStorageSOPClassUID")
            return text_of(parsed.dataset, "Modality") or ("RTSTRUCT" if media == RT_STRUCTURE_SET else "")
    except InputError:
        return ""


def _reason_in(message: str) -> Reason:
    """Reason code in a message of the stage fetch."""
    codes = {reason.value: reason for reason in Reason}
    return next((codes[word] for word in re.findall(r"\b[A-Z_]+(?=: )", message) if word in codes), Reason.INCOMPLETE)


def read_companions(paths: Sequence[Path], series: SortedSeries, *, limit: int) -> Companions:
    """Read the structure sets among the companions of a series; companions of other kinds (SEG) are ignored.

    Parameters
    ----------
    paths : sequence of Path
        Companion files of the series.
    series : SortedSeries
    limit : int
        Bytes that a deflated file may unpack to.

    Returns
    -------
    Companions
    """
    out = Companions()
    for position, path in enumerate(paths, start=1):
        try:
            structures = load_contours(path, limit=limit)
        except InputError as error:
            if error.reason is not Reason.NO_EXPERT:
                out.add_failure(path, error, f"companion {position}")
            continue
        uid = structures.sop_instance_uid
        link = link_to(structures, series)
        if link is None:
            text = "the structure set refers to another series and another frame of reference"
            out.issues.append(contour_issue("contours.reference", Severity.WARNING, uid, text))
            out.refusals.append(
                "the structure set belongs to another series: neither its references nor its frame of reference fit"
            )
            continue
        elsewhere = rois_of_other_series(structures, series, link)
        refusal = several_series(structures, elsewhere)
        if refusal is not None:
            out.issues.append(contour_issue("contours.reference", Severity.WARNING, uid, refusal))
            out.refusals.append(refusal)
            out.elsewhere.append((structures, elsewhere))
            continue
        out.found.append(LinkedStructures(structures=structures, link=link, elsewhere=elsewhere))
    out.elsewhere.sort(key=lambda one: (one[0].stamp, one[0].sop_instance_uid))
    return out

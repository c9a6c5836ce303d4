"""Find the structure set of a series among its companions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctenrich.contours.findings import contour_issue
from ctenrich.contours.ownership import Elsewhere, rois_of_other_series, several_series
from ctenrich.contours.rtstruct import StructureSet, link_to, load_contours
from ctenrich.errors import CtenrichError, InputError
from ctenrich.reasons import Reason
from ctenrich.records import CompanionLink, Issue, Severity, SortedSeries

__all__ = ["Companions", "LinkedStructures", "read_companions"]

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
    failure: CtenrichError | None = None
    """Error of the first structure set that cannot be read."""
    issues: list[Issue] = field(default_factory=list)
    """Unreadable companions, structure sets of other series, structure sets that were not chosen."""

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
            NO_REFERENCE if all structure sets belong to other series, the error of the first that cannot be read, the
            reason of one that could not be fetched, NO_EXPERT if there is none.
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
        unlinked = list(dict.fromkeys(i.message for i in series.issues if i.rule in _UNLINKED))
        if unlinked or self.refusals:
            return InputError(Reason.NO_REFERENCE, "; ".join(dict.fromkeys([*unlinked, *self.refusals])))
        return self.failure or InputError(
            Reason.NO_EXPERT, "the series has no RT Structure Set", "expert needs an RTSTRUCT companion"
        )


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
                out.failure = out.failure or error
                issue = contour_issue("contours.unreadable", Severity.WARNING, f"companion {position}", error.message)
                out.issues.append(issue)
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

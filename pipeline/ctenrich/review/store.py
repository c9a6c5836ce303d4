"""Keep the reviews of a run: ``reviews.jsonl`` in its folder, to which reviews are only added."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.records import EncodedObjects, Product
from ctenrich.review.reading import read_review_file, review_of
from ctenrich.review.records import Decision, ProductReview, RefusedReview, Review, ReviewState
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace

__all__ = ["ImportedReviews", "ReviewStore", "objects_version", "run_identifier", "version_of_uids"]


@dataclass(frozen=True, kw_only=True)
class ImportedReviews:
    """Outcome of the import of a review file."""

    added: int
    repeated: int
    """Reviews that the run already had."""
    refused: tuple[RefusedReview, ...]


def run_identifier(workspace: Workspace) -> str:
    """Return what a review file names as its run: the hash of the run's cohort file, the same whatever the folder."""
    try:
        found = json.loads((workspace.root / "run.json").read_bytes())
        return str(found["cohort_sha256"])[:16]
    except (OSError, ValueError, KeyError, TypeError):
        return workspace.root.name


def version_of_uids(sop_instance_uids: Iterable[str]) -> str:
    """Return the version of a product's objects: a hash of their SOP Instance UIDs, which change with their content."""
    uids = sorted(sop_instance_uids)
    return hashlib.sha256("|".join(uids).encode()).hexdigest()[:16] if uids else ""


def objects_version(store: SeriesStore, uid: str, product: Product) -> str:
    """Return the version of the objects that a product has now; empty if it has none.

    Parameters
    ----------
    store : SeriesStore
        The run.
    uid : str
        Series Instance UID.
    product : Product
        One of the products of the series.
    """
    record = store.find_valid(EncodedObjects, uid, product)
    return version_of_uids(item.sop_instance_uid for item in record.objects) if record else ""


class ReviewStore:
    """Reviews of a run.

    Parameters
    ----------
    workspace : Workspace
        The run.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.path: Path = workspace.root / "reviews.jsonl"
        self._versions: dict[tuple[str, str], str | None] = {}

    def load(self) -> tuple[Review, ...]:
        """Load all reviews in the order of their import; a last line that a killed process was writing is left out.

        Raises
        ------
        UsageError
            BAD_REVIEW if a line is damaged.
        """
        return tuple(review for review, _ in self.load_with_import())

    def load_with_import(self) -> tuple[tuple[Review, str], ...]:
        """Load all reviews with the time of their import (ISO 8601, UTC); see :meth:`load`."""
        if not self.path.is_file():
            return ()
        lines = self.path.read_text("utf-8").split("\n")
        return tuple(self._review_of_line(line, number) for number, line in enumerate(lines[:-1], 1) if line)

    def import_file(self, path: Path) -> ImportedReviews:
        """Add the reviews of a file; those that are here already are not added again.

        Parameters
        ----------
        path : Path
            Review file of this run.

        Returns
        -------
        ImportedReviews
            Reviews of unknown series or products, and of objects that have been made again, are refused one by one.

        Raises
        ------
        UsageError
            NOT_FOUND, BAD_REVIEW; OTHER_RUN if the file is about another run.
        """
        found = read_review_file(path)
        here = run_identifier(self.workspace)
        if found.run != here:
            message = f"{path.name} is about the run {found.run[:64]!r}, this one is {here!r}"
            raise UsageError(Reason.OTHER_RUN, message, "name the folder of the run that was reviewed")
        known = set(self.load())
        refused, new = [], []
        for review in dict.fromkeys(found.reviews):
            fault = self._fault_of(review)
            if fault is not None:
                refused.append(fault)
            elif review not in known:
                new.append(review)
        self._append(new)
        repeated = len(found.reviews) - len(new) - len(refused)
        return ImportedReviews(added=len(new), repeated=repeated, refused=tuple(refused))

    def current_version(self, uid: str, product: str) -> str | None:
        """Version of the objects of a product; None if the run has no such series or product.

        Parameters
        ----------
        uid : str
            Series Instance UID.
        product : str
            Key of the product.
        """
        key = uid, product
        if key not in self._versions:
            store = SeriesStore(self.workspace)
            found = next((p for p in store.products(uid) if str(p) == product), None)
            self._versions[key] = None if found is None else objects_version(store, uid, found)
        return self._versions[key]

    def states(self) -> Mapping[tuple[str, str], ProductReview]:
        """State of every product that has a review: (Series Instance UID, key of the product) -> state."""
        last: dict[tuple[str, str], dict[tuple[str, bool], Review]] = defaultdict(dict)
        for review in self.load():
            place = last[review.series_instance_uid, review.product]
            key = review.reviewer, review.decision is Decision.COMMENT
            if key not in place or review.time >= place[key].time:
                place[key] = review
        return {key: self._state_of(key, tuple(found.values())) for key, found in last.items()}

    def accepted(self) -> frozenset[tuple[str, str]]:
        """(Series Instance UID, key of the product) of all products that are accepted as they are now."""
        return frozenset(key for key, found in self.states().items() if found.state is ReviewState.ACCEPTED)

    def is_current(self, review: Review) -> bool:
        """Whether a review is about the objects that the product has now."""
        return review.objects == self.current_version(review.series_instance_uid, review.product)

    def _state_of(self, key: tuple[str, str], reviews: tuple[Review, ...]) -> ProductReview:
        decisions = [r for r in reviews if r.decision is not Decision.COMMENT]
        now = {r.decision for r in decisions if r.objects == self.current_version(*key)}
        if now == {Decision.ACCEPT, Decision.REJECT}:
            state = ReviewState.DISPUTED
        elif now:
            state = ReviewState.ACCEPTED if Decision.ACCEPT in now else ReviewState.REJECTED
        else:
            state = ReviewState.OUTDATED if decisions else ReviewState.COMMENTED
        return ProductReview(state=state, last=tuple(sorted(reviews, key=lambda r: r.time, reverse=True)))

    def _fault_of(self, review: Review) -> RefusedReview | None:
        now = self.current_version(review.series_instance_uid, review.product)
        if now is None:
            text = f"the run has no product {review.product} of the series {review.series_instance_uid}"
            return RefusedReview(review=review, reason=Reason.NOT_FOUND, message=text)
        if review.objects != now:
            text = f"{review.series_instance_uid}, {review.product}: its objects have been made again since the review"
            return RefusedReview(review=review, reason=Reason.OUTDATED_REVIEW, message=text)
        return None

    def _append(self, reviews: list[Review]) -> None:
        if not reviews:
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = "".join(json.dumps(_line_of(review, now), ensure_ascii=False) + "\n" for review in reviews)
        with self.path.open("ab+") as handle:
            handle.seek(0)
            torn = handle.read()
            if torn and not torn.endswith(b"\n"):  # the line that a killed process was writing
                handle.truncate(torn.rfind(b"\n") + 1)
            handle.write(text.encode("utf-8"))
            handle.flush()
            os.fsync(handle.fileno())

    def _review_of_line(self, line: str, number: int) -> tuple[Review, str]:
        where = f"line {number} of {self.path.name}"
        try:
            row = json.loads(line)
            return review_of(row, where), str(row.get("imported", ""))
        except ValueError:
            raise UsageError(Reason.BAD_REVIEW, f"{where} is damaged", "restore the file from a backup") from None


def _line_of(review: Review, imported: str) -> dict[str, Any]:
    return {
        "series": review.series_instance_uid,
        "product": review.product,
        "objects": review.objects,
        "decision": review.decision.value,
        "reason": review.reason,
        "comment": review.comment,
        "reviewer": review.reviewer,
        "time": review.time,
        "imported": imported,
    }

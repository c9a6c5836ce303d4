"""Records of a review: what one reviewer decided about one product of one series."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ctenrich.reasons import Reason

__all__ = ["REASONS", "Decision", "ProductReview", "RefusedReview", "Review", "ReviewFile", "ReviewState"]


class Decision(StrEnum):
    """What a reviewer decided."""

    ACCEPT = "accept"
    REJECT = "reject"
    COMMENT = "comment"
    """No decision: a comment only."""


class ReviewState(StrEnum):
    """State of a product by the last decisions of all of its reviewers."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    DISPUTED = "disputed"
    """One reviewer accepts it and another one rejects it."""
    OUTDATED = "outdated"
    """Decisions exist, but all of them are about objects that have been made again since."""
    COMMENTED = "commented"
    NOT_REVIEWED = "not reviewed"


REASONS = (
    "over-segmentation",
    "under-segmentation",
    "wrong structure",
    "wrong side",
    "island",
    "missing part",
    "dose",
    "image quality",
    "wrong series",
    "other",
)
"""Reasons that the report offers for a rejection; a review file may state others."""


@dataclass(frozen=True, kw_only=True)
class Review:
    """Decision or comment of one reviewer about one product of one series."""

    series_instance_uid: str
    product: str
    """Key of the product."""
    objects: str
    """Version of the product's objects that the reviewer saw; see :func:`ctenrich.review.store.objects_version`."""
    decision: Decision
    reviewer: str
    time: str
    """When the reviewer decided: ISO 8601, UTC, e.g. ``2026-01-31T12:00:00Z``."""
    reason: str = ""
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class ReviewFile:
    """Content of a review file that the report wrote."""

    run: str
    """Identifier of the run that was reviewed."""
    reviews: tuple[Review, ...]


@dataclass(frozen=True, kw_only=True)
class RefusedReview:
    """A review of a file that cannot be taken, and why."""

    review: Review
    reason: Reason
    message: str


@dataclass(frozen=True, kw_only=True)
class ProductReview:
    """State of one product of one series, with the last review of each reviewer."""

    state: ReviewState
    last: tuple[Review, ...] = field(default=())
    """The last review of each reviewer, the newest first."""

"""Options of a publication: which files are sent, to whom, and by which certificates."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import SplitResult, urlsplit

from ctenrich.archives.nodes import Node, TlsFiles, check_titles
from ctenrich.errors import UsageError, did_you_mean
from ctenrich.reasons import Reason

__all__ = ["KNOWN_TARGETS", "Content", "Node", "PublishOptions", "TlsFiles", "node_of", "parse_content", "parts_of"]

KNOWN_TARGETS = "bigquery:PROJECT.DATASET, gs://BUCKET/PREFIX, s3://BUCKET/PREFIX, http(s)://..., dicom://HOST:PORT/AET"


class Content(StrEnum):
    """Which files of a run are sent."""

    OBJECTS = "objects"
    """The written objects: segmentations and reports."""
    STRUCTURE_SETS = "structure-sets"
    """The RT Structure Sets that ``ctenrich export RUN rtstruct`` wrote into the run's folder."""
    SOURCES = "sources"
    """The source files of the series: images, structure sets, plans, doses and segmentations."""


@dataclass(frozen=True, kw_only=True)
class PublishOptions:
    """What is sent, and how."""

    what: tuple[Content, ...] = (Content.OBJECTS,)
    identified: bool = False
    """Whether patients who can be identified may go to a bucket or to Google Healthcare; a PACS is not asked about."""
    accepted_only: bool = False
    """Whether only products are sent that reviewers have accepted, and sources of series that have one."""
    calling: str = "CTENRICH"
    """Application entity title of this side."""
    tls: TlsFiles | None = None
    """For a DICOM node: TLS is used; for an https address: other certificates than the system's."""


def parse_content(text: str) -> tuple[Content, ...]:
    """Parse a list like ``sources,objects``.

    Raises
    ------
    UsageError
        BAD_PARAMETER for another word, or none.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    known = [content.value for content in Content]
    for word in words:
        if word not in known:
            hint = did_you_mean(word, known, f"use {', '.join(known)}, separated by commas")
            raise UsageError(Reason.BAD_PARAMETER, f"{word!r} is nothing that can be sent", hint)
    if not words:
        raise UsageError(Reason.BAD_PARAMETER, "nothing is to be sent", f"use {', '.join(known)}")
    return tuple(content for content in Content if content.value in words)


def parts_of(target: str) -> SplitResult:
    """Split an address.

    Raises
    ------
    UsageError
        BAD_PARAMETER where it is none.
    """
    try:
        parts = urlsplit(target)
        _ = parts.port  # raises for a port that is no number
    except ValueError as error:
        raise UsageError(Reason.BAD_PARAMETER, f"{target} is not an address: {error}", KNOWN_TARGETS) from None
    return parts


def node_of(target: str, options: PublishOptions | None = None) -> Node:
    """Return the node ``dicom://HOST:PORT/AET``.

    Parameters
    ----------
    target : str
    options : PublishOptions, optional
        Title of this side and certificates.

    Returns
    -------
    Node

    Raises
    ------
    UsageError
        BAD_PARAMETER where host, port or title is missing, or a title has more than 16 characters (PS3.5 6.2).
    """
    chosen = options or PublishOptions()
    parts = parts_of(target)
    title = parts.path.strip("/")
    if parts.scheme != "dicom" or not parts.hostname or not parts.port or not title:
        message = f"the target {target} is not known"
        raise UsageError(Reason.BAD_PARAMETER, message, "a DICOM node is dicom://HOST:PORT/AET")
    check_titles((title, chosen.calling))
    return Node(host=parts.hostname, port=parts.port, called=title, calling=chosen.calling, tls=chosen.tls)

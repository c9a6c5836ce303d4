"""Headers of the viewer's answers: what a browser may load, store and show in frames; requested ranges of bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["OHIF_POLICY", "OWN_POLICY", "asked_range", "for_notebooks", "security_headers"]

OHIF_POLICY = (
    "default-src 'self' blob: data:; script-src 'self' 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; frame-ancestors 'none'"
)
OWN_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""Policy of our own pages, which have no scripts."""
_NO_FRAMES = "frame-ancestors 'none'"
_NOTEBOOK_FRAMES = (
    "frame-ancestors http://localhost:* http://127.0.0.1:* https://colab.research.google.com "
    "https://*.googleusercontent.com https://*.colab.googleusercontent.com"
)


def for_notebooks(policy: str) -> str:
    """Return a policy that lets the pages of notebooks show the answer in a frame."""
    return policy.replace(_NO_FRAMES, _NOTEBOOK_FRAMES)


def asked_range(header: str, size: int) -> tuple[int, int] | None:
    """First and last byte plus one of a Range header with one range (RFC 9110, 14.1.2); None: the whole content.

    A range that begins after the end gives ``(size, size)``.

    Parameters
    ----------
    header : str
        Value of the header, e.g. ``bytes=0-1023``.
    size : int
        Length of the content in bytes.
    """
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        return (max(size - int(last), 0), size) if int(last) else (size, size)
    start, end = int(first), min(int(last) + 1, size) if last else size
    if start >= size:
        return (size, size)
    return (start, end) if start < end else None


def security_headers(policy: str) -> Iterator[tuple[str, str]]:
    """Headers that keep requests on this computer and other pages from reading them."""
    yield "Cross-Origin-Opener-Policy", "same-origin"
    yield "Cross-Origin-Embedder-Policy", "require-corp"
    yield "Cross-Origin-Resource-Policy", "same-origin"
    yield "X-Content-Type-Options", "nosniff"
    yield "Referrer-Policy", "no-referrer"
    yield "Cache-Control", "no-store"
    yield "Content-Security-Policy", policy

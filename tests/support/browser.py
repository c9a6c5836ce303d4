"""Headless chromium for tests: one way to start it, and a record of what it asked for or complained about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.conftest import need_package, need_program

FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
)


@dataclass
class Watched:
    """A page, with what it asked for and complained about."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def outside(self, *allowed: str) -> list[str]:
        """Requests that went anywhere but to the allowed prefixes (files and data URIs are always allowed)."""
        return [r for r in self.requests if not r.startswith(("file:", "data:", "blob:", *allowed))]


@contextmanager
def chromium(width: int = 1280, height: int = 900) -> Iterator[Watched]:
    """A page of a fresh browser; the test is skipped (or fails, where required) without one."""
    binary = need_program("chromium", "chromium", "chromium-browser", "google-chrome")
    need_package("chromium", "playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=binary, args=list(FLAGS))
        page = browser.new_page(viewport={"width": width, "height": height})
        watched = Watched(page)
        page.on("console", lambda m: watched.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: watched.errors.append(str(e)))
        page.on("request", lambda r: watched.requests.append(r.url))
        try:
            yield watched
        finally:
            browser.close()

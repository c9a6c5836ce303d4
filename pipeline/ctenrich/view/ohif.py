"""OHIF, the viewer: a pinned build, taken from a folder or fetched once through npm, and set up for this computer."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ctenrich.errors import ToolError, UnsafeInputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.tools import find_tool, run_tool

__all__ = ["OHIF_SHA256", "OHIF_VERSION", "app_config", "clean_index", "obtain_ohif", "overlap_note", "repaired"]

OHIF_VERSION = "3.13.2"
OHIF_SHA256 = "b189d3963bfc58e9394a9db8c7be75d07beb029ec211dbb126d47b62969dd3f1"
"""Of the package @ohif/app as npm serves it."""
_LEFT_OUT = ("package/dist/ort/", "package/dist/dicom-microscopy-viewer/")
"""Parts for other uses (neural networks in the browser, microscopy): 156 of 204 MB."""
_FAULT = b"largerArray.forEach((_, currentImageIndex) => {"
"""Where OHIF 3.13.2 lays segments of an overlapping SEG together: `forEach` skips the holes of a sparse array, so that
slices that only the later segment has are lost; see docs/decisions/0086."""
_REPAIR = b"Array.from(largerArray).forEach((_, currentImageIndex) => {"


def obtain_ohif(folder: Path | None = None) -> Path:
    """Folder with OHIF's built site.

    Parameters
    ----------
    folder : Path, optional
        A built site, or the package file of npm, that is already here. Without it the package is fetched once through
        the npm client into ``$XDG_CACHE_HOME/ctenrich`` and checked against its pinned SHA-256.

    Raises
    ------
    UsageError
        NOT_FOUND: the folder holds no OHIF build.
    ToolError
        TOOL_MISSING or TOOL_FAILED: npm is not there or could not fetch it.
    UnsafeInputError
        HASH_MISMATCH: the package is not the pinned one.
    """
    if folder is not None and folder.is_dir():
        found = folder / "dist" if (folder / "dist" / "index.html").is_file() else folder
        if not (found / "index.html").is_file():
            raise UsageError(Reason.NOT_FOUND, "the folder holds no built OHIF", "give the folder with its index.html")
        return found
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ctenrich" / f"ohif-{OHIF_VERSION}"
    if not (cache / "index.html").is_file():
        if folder is not None:
            _unpack(folder, cache)
        else:
            _fetch(cache)
    return cache


def _fetch(cache: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            npm = find_tool("npm")
        except ToolError as error:
            hint = "install Node.js, or name a folder with OHIF's build"
            raise ToolError(error.reason, "npm is needed once, to fetch the viewer", hint) from None
        run_tool([npm, "pack", f"@ohif/app@{OHIF_VERSION}", "--pack-destination", scratch], timeout=600)
        _unpack(next(Path(scratch).glob("*.tgz")), cache)


def _unpack(package: Path, cache: Path) -> None:
    """Unpack the checked package beside its place and move it there."""
    if not package.is_file():
        raise UsageError(Reason.NOT_FOUND, f"there is no {package.name}")
    with package.open("rb") as handle:
        if hashlib.file_digest(handle, "sha256").hexdigest() != OHIF_SHA256:
            raise UnsafeInputError(Reason.HASH_MISMATCH, f"{package.name} is not OHIF {OHIF_VERSION} as pinned")
    cache.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=cache.parent))
    try:
        with tarfile.open(package) as tar:
            wanted = [m for m in tar if m.name.startswith("package/dist/") and not m.name.startswith(_LEFT_OUT)]
            tar.extractall(fresh, members=wanted, filter="data")
        if not cache.exists():
            (fresh / "package" / "dist").rename(cache)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def clean_index(html: str) -> str:
    """OHIF's page without what would leave this computer (fonts, analytics) and without its service worker."""
    html = re.sub(r"<link\b[^>]*\bhref=[\"']?(?:https?:)?//[^>]*>", "", html)
    html = re.sub(r"<script\b[^>]*\bsrc=[\"']?(?:https?:)?//[^>]*></script>", "", html)
    return re.sub(r"<script\b[^>]*init-service-worker[^>]*></script>", "", html)


_OVERLAY = """
(function () {
  const wanted = new URLSearchParams(location.search).get("overlay");
  const drawn = (element) => element.viewport.viewportStatus === "rendered" && element.viewport.getCurrentImageId?.();
  const until = Date.now() + 300000;
  const timer = wanted && setInterval(async () => {
    if (Date.now() > until) return clearInterval(timer);
    const seg = window.services?.displaySetService?.getDisplaySetsForSeries(wanted)?.[0];
    if (!seg?.load || !window.cornerstone?.getEnabledElements().some(drawn)) return;
    clearInterval(timer);
    const { hangingProtocolService, userAuthenticationService, viewportGridService } = window.services;
    await seg.load({ headers: userAuthenticationService.getAuthorizationHeader() });
    const shown = viewportGridService.getActiveViewportId();
    const viewportsToUpdate = hangingProtocolService.getViewportsRequireUpdate(shown, seg.displaySetInstanceUID);
    window.commandsManager.run("setDisplaySetsForViewports", { viewportsToUpdate });
  }, 50);
})();
"""
"""Reads the SEG that the address names as `overlay` once the CT is there to be seen, then lays it over the CT."""


def repaired(script: bytes) -> bytes:
    """A script of OHIF as it is handed out: no slice of an overlapping segment is lost; all else as it was."""
    return script.replace(_FAULT, _REPAIR)


def overlap_note(build: Path) -> str:
    """What a reader must know about overlapping segments in this build."""
    if any(_FAULT in path.read_bytes() for path in build.glob("*.js")):
        return (
            "OHIF by itself leaves out slices of some segments that overlap others; its code is handed out with that "
            "line repaired, so all segments are drawn. The SEG files are shown as they were written."
        )
    return (
        f"This is another build of OHIF than the one that is tested ({OHIF_VERSION}): it may leave out slices of "
        "segments that overlap others. Count on the report's pictures there."
    )


def app_config(*, pacs: bool) -> str:
    """OHIF's configuration: one data source, the DICOMweb below our own address (this run's, or a PACS behind it)."""
    source: dict[str, Any] = {
        "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
        "sourceName": "dicomweb",
        "configuration": {
            "friendlyName": "PACS" if pacs else "ctenrich run",
            "name": "ctenrich",
            "wadoUriRoot": "/dicom-web",
            "qidoRoot": "/dicom-web",
            "wadoRoot": "/dicom-web",
            "imageRendering": "wadors",
            "thumbnailRendering": "wadors",
            "enableStudyLazyLoad": True,
            "qidoSupportsIncludeField": False,
            "supportsFuzzyMatching": False,
            "supportsWildcard": True,
        },
    }
    config = {
        "routerBasename": "/",
        "extensions": [],
        "modes": [],
        "showStudyList": pacs,
        "showLoadingIndicator": True,
        "showCPUFallbackMessage": False,
        "showWarningMessageForCrossOrigin": False,
        "investigationalUseDialog": {"option": "never"},
        "strictZSpacingForVolumeViewport": True,
        "maxNumberOfWebWorkers": 2,
        "disableConfirmationPrompts": True,
        "defaultDataSourceName": "dicomweb",
        "dataSources": [source],
    }
    tour = 'try{localStorage.setItem("shownTours",JSON.stringify(["basicViewerTour"]))}catch(e){}'
    handler = "window.config.httpErrorHandler=function(e){console.warn(String(e))};"
    return f"window.config={json.dumps(config)};{handler}{tour}\n{_OVERLAY}"

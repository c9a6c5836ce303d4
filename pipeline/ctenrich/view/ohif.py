"""The OHIF viewer: obtain a pinned build from a folder or once through npm, and configure it for this computer."""

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

__all__ = [
    "OHIF_SHA256",
    "OHIF_VERSION",
    "app_config",
    "clean_index",
    "obtain_ohif",
    "ohif_style",
    "overlap_note",
    "repaired",
]

OHIF_VERSION = "3.13.2"
OHIF_SHA256 = "b189d3963bfc58e9394a9db8c7be75d07beb029ec211dbb126d47b62969dd3f1"
"""Hash of the npm package @ohif/app."""
_LEFT_OUT = ("package/dist/ort/", "package/dist/dicom-microscopy-viewer/")
"""Parts that are not needed (neural networks in the browser, microscopy): 156 of 204 MB."""
_FAULT = b"largerArray.forEach((_, currentImageIndex) => {"
"""Here OHIF 3.13.2 merges the segments of an overlapping SEG: `forEach` skips the holes of a sparse array, so that
slices that only the later segment has are lost; see docs/decisions/0086."""
_PANELS = {"leftPanelClosed": {"$set": False}, "rightPanelClosed": {"$set": False}}
"""Both panels open: the series on the left, the segments on the right (changes in immutability-helper's terms)."""
_PROPS = 'config.modesConfiguration["@ohif/mode-longitudinal"].routes[0].layoutInstance.props'
_LOGO = (
    """(React)=>React.createElement("a",{href:"/",style:{color:"#fff",padding:"0 8px"}},"\u2190 All series (OHIF)")"""
)
"""A link to the overview of the run in place of OHIF's logo."""
NARROW = 900
"""Below this width of the window, in pixels, both panels are closed, so that the picture has the whole width."""
_REPAIR = b"Array.from(largerArray).forEach((_, currentImageIndex) => {"


def obtain_ohif(folder: Path | None = None) -> Path:
    """Return a folder with a build of OHIF.

    Parameters
    ----------
    folder : Path, optional
        An existing build, or npm's package file. By default the package is downloaded once by the npm client into
        ``$XDG_CACHE_HOME/ctenrich`` and checked against its pinned SHA-256.

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        NOT_FOUND if the folder holds no build of OHIF.
    ToolError
        TOOL_MISSING or TOOL_FAILED if npm is not installed or could not download the package.
    UnsafeInputError
        HASH_MISMATCH if the package is not the pinned one.
    """
    if folder is not None and folder.is_dir():
        found = folder / "dist" if (folder / "dist" / "index.html").is_file() else folder
        if not (found / "index.html").is_file():
            raise UsageError(
                Reason.NOT_FOUND, "the folder holds no build of OHIF", "name the folder with its index.html"
            )
        return found
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ctenrich" / f"ohif-{OHIF_VERSION}"
    if not (cache / "index.html").is_file():
        if folder is not None:
            _unpack(folder, cache)
        else:
            _download_ohif(cache)
    return cache


def _download_ohif(cache: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            npm = find_tool("npm")
        except ToolError as error:
            hint = "install Node.js, or name a folder with a build of OHIF"
            raise ToolError(error.reason, "npm is needed to download the viewer", hint) from None
        run_tool([npm, "pack", f"@ohif/app@{OHIF_VERSION}", "--pack-destination", scratch], timeout=600)
        _unpack(next(Path(scratch).glob("*.tgz")), cache)


def _unpack(package: Path, cache: Path) -> None:
    """Check the package, unpack it beside the cache folder and rename it."""
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
    """Remove requests to other computers (fonts, analytics) and the service worker from OHIF's page."""
    html = re.sub(r"<link\b[^>]*\bhref=[\"']?(?:https?:)?//[^>]*>", "", html)
    html = re.sub(r"<script\b[^>]*\bsrc=[\"']?(?:https?:)?//[^>]*></script>", "", html)
    return re.sub(r"<script\b[^>]*init-service-worker[^>]*></script>", "", html)


def ohif_style() -> str:
    """Style sheet for OHIF's page: room for the banner, and a header that fits a narrow window."""
    return f"<style>{Path(__file__).with_name('ohif.css').read_text('utf-8')}</style>"


def repaired(script: bytes) -> bytes:
    """Repair a script of OHIF so that no slice of an overlapping segment is lost; nothing else is changed."""
    return script.replace(_FAULT, _REPAIR)


def overlap_note(build: Path) -> str:
    """Note for the reader about overlapping segments in this build."""
    if any(_FAULT in path.read_bytes() for path in build.glob("*.js")):
        return (
            "OHIF itself omits slices of some segments that overlap others; that line of its code is repaired here, so "
            "all segments are drawn. The SEG files are shown as they were written."
        )
    return (
        f"This is not the tested build of OHIF ({OHIF_VERSION}): it may omit slices of segments that overlap others. "
        "In that case rely on the pictures of the report."
    )


def app_config(*, pacs: bool) -> str:
    """Configure OHIF with one data source: the DICOMweb service of this server (the run's, or a PACS behind it)."""
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
        "modesConfiguration": {"@ohif/mode-longitudinal": {"routes": {0: {"layoutInstance": {"props": _PANELS}}}}},
    }
    tour = 'try{localStorage.setItem("shownTours",JSON.stringify(["basicViewerTour"]))}catch(e){}'
    narrow = f"if(innerWidth<{NARROW})for(const side of ['left','right']){_PROPS}[side+'PanelClosed']={{$set:true}};"
    handler = "window.config.httpErrorHandler=function(e){console.warn(String(e))};"
    logo = "" if pacs else f"config.whiteLabeling={{createLogoComponentFn:{_LOGO}}};"
    start = Path(__file__).with_name("start.js").read_text("utf-8")
    return f"window.config={json.dumps(config)};{narrow}{logo}{handler}{tour}\n{start}"

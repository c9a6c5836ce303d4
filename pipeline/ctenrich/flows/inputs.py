"""Where the files of a flow are put in the input folder of a step: flat, or in subfolders by attributes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ctenrich.dicom.texts import AttributeTag, read_texts
from ctenrich.errors import CtenrichError
from ctenrich.flows.attributes import is_keyword, parse_attribute

__all__ = ["input_paths"]

_SAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 64
_NAME = "{Modality}_{SeriesInstanceUID}_{SOPInstanceUID}"
"""Name of a file without suffix, as in RadDeploy: ``CT_1.2.3_1.2.3.4.dcm``."""
_KEYWORD = re.compile(r"\{(\w+)\}")


def input_paths(files: Sequence[Path], subfolders: Sequence[str], name: str = _NAME) -> dict[Path, PurePosixPath]:
    """Return the relative path of each file in the input folder of a step.

    Values become names of folders and files; characters other than letters, digits, dot, _ and - are replaced, so that
    a value never leaves the folder.

    Parameters
    ----------
    files : sequence of Path
        DICOM files.
    subfolders : sequence of str
        Keywords, whose values name the subfolders from the top down; another text is itself the name of a folder.
    name : str
        Name of a file without its suffix, with keywords in braces.

    Returns
    -------
    dict
        File -> path; no two files have the same.
    """
    keywords = [*(one for one in subfolders if is_keyword(one)), *_KEYWORD.findall(name)]
    tags = {one: parse_attribute(one).tag for one in keywords}
    found: dict[Path, PurePosixPath] = {}
    taken: set[PurePosixPath] = set()
    for file in files:
        try:
            texts: dict[AttributeTag, str] = read_texts(file, set(tags.values()))
        except CtenrichError:
            texts = {}
        parts = [_folder_name(texts.get(tags[one], "")) if one in tags else one for one in subfolders]
        stem = name.format_map({one: _part(texts.get(tag, "")) for one, tag in tags.items()})
        path = PurePosixPath(*parts, f"{stem}.dcm")
        number = 1
        while path in taken:
            number += 1
            path = PurePosixPath(*parts, f"{stem}_{number}.dcm")
        taken.add(path)
        found[file] = path
    return found


def _part(text: str) -> str:
    return _SAFE.sub("_", text)[:_LONGEST].strip(".")


def _folder_name(text: str) -> str:
    """Name of a folder for a value; of two values that differ the names differ too."""
    name = _part(text)
    if name == text and name:
        return name
    return f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:8]}" if text else "none"

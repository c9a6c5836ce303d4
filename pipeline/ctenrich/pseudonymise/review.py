"""Write what only the owner of the key may see: paths of refused files, and the words that were replaced."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ctenrich.pseudonymise.folder import FolderResult

__all__ = ["write_review"]


def write_review(result: FolderResult, folder: Path) -> None:
    """Write the paths of refused files and the replaced words to a folder that only its owner can read.

    Parameters
    ----------
    result : FolderResult
        Of this call.
    folder : Path
        Gets refused.csv and words.csv; words that earlier calls wrote there stay.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    words = Counter(dict(result.words))
    if (folder / "words.csv").is_file():
        with (folder / "words.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as handle:
            words.update({row["word"]: int(row["times"]) for row in csv.DictReader(handle)})
    tables: Mapping[str, Sequence[Sequence[object]]] = {
        "refused.csv": [("file", "reason", "detail", "hint")]
        + [(str(p), r.reason.value, r.detail, r.hint) for p, r in sorted(result.refused.items())],
        "words.csv": [("word", "times"), *sorted(words.items(), key=lambda pair: (-pair[1], pair[0]))],
    }
    for name, rows in tables.items():
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as handle:
            csv.writer(handle, lineterminator="\n").writerows(rows)

"""Write the folder of sample objects."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ctenrich.errors import UsageError
from ctenrich.phantom import PhantomOptions
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.samples.contents import ObjectContents, contents_of
from ctenrich.samples.kinds import SAMPLES
from ctenrich.samples.readme import LICENCE, readme_text
from ctenrich.samples.runs import SampleRuns
from ctenrich.workspace import sha256_of_file, write_bytes

__all__ = ["Samples", "make_samples"]

_TASK = "samples"


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What was written."""

    folder: Path
    contents: Mapping[str, ObjectContents]
    """File in ``objects`` -> what it contains."""
    left_out: tuple[str, ...]
    """Files that need a package that is not installed."""


def make_samples(out: Path, *, options: PhantomOptions | None = None, progress: Progress = SILENT) -> Samples:
    """Write a generated CT, one object of every kind about it, and what must be seen of each.

    Every object comes from a run whose proof passed, or was read again and compared by its writer. The same version
    gives the same bytes.

    Parameters
    ----------
    out : Path
        New or empty folder: gets ``images/``, ``objects/``, ``README.md``, ``LICENSE.txt`` and ``expected.json``.
    options : PhantomOptions, optional
        Another patient or grid.
    progress : Progress
        Advanced by one for every object.

    Returns
    -------
    Samples

    Raises
    ------
    UsageError
        BAD_PARAMETER if the folder is not empty.
    EncodingError
        PROOF_FAILED if an object could not be made or is not proven.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(Reason.BAD_PARAMETER, f"{out.name} is not an empty folder", "name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    contents: dict[str, ObjectContents] = {}
    left_out: list[str] = []
    progress.start(_TASK, len(SAMPLES))
    with tempfile.TemporaryDirectory() as scratch:
        runs = SampleRuns(out / "images", Path(scratch), options)
        for sample in SAMPLES:
            if sample.needs_pyradiomics and not runs.has_pyradiomics:
                left_out.append(sample.file)
            else:
                path = out / "objects" / sample.file
                path.parent.mkdir(exist_ok=True)
                shutil.copyfile(sample.make(runs), path)
                contents[sample.file] = contents_of(path, runs.series, sample.example)
            progress.advance(_TASK)
        slices = len(runs.series.slices)
    progress.finish(_TASK)
    _write_texts(out, contents, slices, left_out)
    return Samples(folder=out, contents=contents, left_out=tuple(left_out))


def _write_texts(out: Path, contents: Mapping[str, ObjectContents], slices: int, left_out: list[str]) -> None:
    expected = {
        file: {"sha256": sha256_of_file(out / "objects" / file), **asdict(one)} for file, one in contents.items()
    }
    write_bytes(out / "README.md", readme_text(contents, SAMPLES, slices, left_out).encode())
    write_bytes(out / "LICENSE.txt", LICENCE.encode())
    write_bytes(out / "expected.json", (json.dumps(expected, indent=1) + "\n").encode())

"""Keep the licences of all packages of the lock: scripts/licences.csv, and the page that is made of it.

python scripts/licences.py collect   adds rows for new packages from their metadata; correct them by hand
python scripts/licences.py page      writes docs/licences.md
"""

from __future__ import annotations

import csv
import importlib.metadata
import re
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import lock

TABLE = lock.ROOT / "scripts" / "licences.csv"
PAGE = lock.ROOT / "docs" / "licences.md"
PERMISSIVE = frozenset(
    {
        "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "HPND", "ISC",
        "LLVM-exception", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Python-2.0", "Unlicense", "W3C-20150513", "Zlib",
    }
)  # fmt: skip
WEAK = frozenset({"LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later", "MPL-2.0"})
"""Copyleft of the package's own files: it may be used and installed beside a package under Apache-2.0."""
VENDOR = frozenset({"LicenseRef-NVIDIA"})
"""Not free: PyTorch's build for NVIDIA GPUs needs these packages, and the user gets them from the package index."""
_OPERATORS = re.compile(r"\s+(?:AND|OR|WITH)\s+|[()]")
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_NAMES = {
    "apache 2.0": "Apache-2.0", "apache license 2.0": "Apache-2.0", "apache-2.0": "Apache-2.0", "apache": "Apache-2.0",
    "apache license": "Apache-2.0", "apache license, version 2.0": "Apache-2.0", "bsd": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause", "bsd-3-clause": "BSD-3-Clause", "bsd-2-clause": "BSD-2-Clause", "isc": "ISC",
    "mit": "MIT", "mit license": "MIT", "mpl-2.0": "MPL-2.0", "psf-2.0": "PSF-2.0", "new bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause", "the mit license": "MIT", "3-clause bsd license": "BSD-3-Clause",
}  # fmt: skip


@dataclass(frozen=True)
class Licence:
    """Licence of one package."""

    package: str
    expression: str
    """SPDX expression."""
    note: str


def read() -> dict[str, Licence]:
    """Rows of the table by package."""
    with TABLE.open(newline="", encoding="utf-8") as handle:
        return {row["package"]: Licence(**row) for row in csv.DictReader(handle)}


def terms(expression: str) -> set[str]:
    """Identifiers of an SPDX expression."""
    return {term.strip() for term in _OPERATORS.split(expression) if term.strip()}


def accepted(expression: str) -> bool:
    """Whether a package under Apache-2.0 may depend on it; of alternatives one is enough."""
    choices = [terms(choice) for choice in re.split(r"\s+OR\s+", expression)]
    return any(choice and choice <= PERMISSIVE | WEAK | VENDOR for choice in choices)


def stated(package: str) -> str:
    """SPDX expression of an installed package's metadata, empty where they are not clear."""
    meta = importlib.metadata.metadata(package)
    if expression := meta.get("License-Expression"):
        return str(expression)
    found = {c.split(" :: ")[-1] for c in meta.get_all("Classifier") or () if c.startswith("License :: OSI")}
    known = sorted({_CLASSIFIERS[c] for c in found if c in _CLASSIFIERS})
    if known and len(known) == len(found):
        return " AND ".join(known)
    return _NAMES.get((meta.get("License") or "").strip().lower(), "")


def collect() -> None:
    """Add the packages of the lock that the table does not have, and drop those that are gone."""
    rows = read() if TABLE.exists() else {}
    kept = []
    for package in lock.read():
        row = rows.get(package.name)
        if row is None:
            try:
                row = Licence(package.name, stated(package.name), "")
            except importlib.metadata.PackageNotFoundError:
                row = Licence(package.name, "", "not installed here")
        kept.append(row)
    with TABLE.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("package", "expression", "note"))
        writer.writerows((row.package, row.expression, row.note) for row in kept)


def page() -> str:
    """Text of docs/licences.md."""
    rows, packages = read(), lock.read()
    lines = [
        "# Licences of the dependencies",
        "",
        "ctenrich is under Apache-2.0. The table has every package of the lock (`constraints.txt`), written by",
        "`python scripts/licences.py page`; a test refuses a package without a licence, and GPL and AGPL. A package",
        "under MPL or LGPL is installed beside ctenrich unchanged. NVIDIA's libraries come from the package index,",
        "under NVIDIA's own terms, and only with PyTorch's build for GPUs. Models have",
        "[licences of their own](models.md).",
        "",
        "| package | version | licence | needed by | note |",
        "|---|---|---|---|---|",
    ]
    for package in packages:
        row = rows[package.name]
        parts = ", ".join(package.parts)
        lines.append(f"| {package.name} | {package.version} | {row.expression} | {parts} | {row.note} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Run one of the commands."""
    match arguments:
        case ["collect"]:
            collect()
        case ["page"]:
            PAGE.write_text(page(), "utf-8")
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

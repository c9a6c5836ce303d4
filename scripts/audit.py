"""Compare the lock and the bounds of pyproject.toml with a stored list of known holes; nothing is asked of a network.

python scripts/audit.py      exit code 1 if a locked version, or one that a lower bound lets in, is on the list

The list is scripts/vulnerabilities.csv: identifier, package, affected versions (PEP 440), first version without it.
"""

from __future__ import annotations

import csv
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

sys.path.insert(0, str(Path(__file__).parent))
import lock

TABLE = lock.ROOT / "scripts" / "vulnerabilities.csv"


@dataclass(frozen=True, kw_only=True)
class Hole:
    """One known vulnerability of a range of versions."""

    id: str
    package: str
    affected: str
    """PEP 440 specifiers."""
    fixed: str
    problem: str

    def hits(self, version: str) -> bool:
        """Whether a version is affected."""
        return Version(version) in SpecifierSet(self.affected, prereleases=True)

    def admitted_by(self, requirement: Requirement) -> bool:
        """Whether a requirement's lower bound lets an affected version in."""
        bounds = [Version(s.version) for s in requirement.specifier if s.operator in {">=", "==", "~="}]
        return not bounds or max(bounds) < Version(self.fixed)


def read() -> list[Hole]:
    """Rows of the list."""
    with TABLE.open(newline="", encoding="utf-8") as handle:
        return [Hole(**row) for row in csv.DictReader(handle)]


def audit(holes: Iterable[Hole], locked: Iterable[lock.Pinned], wanted: Iterable[str]) -> list[str]:
    """Describe each hole of the locked versions and of the direct requirements."""
    versions = {package.name: package.version for package in locked}
    requirements = [Requirement(text) for text in wanted]
    found = []
    for hole in holes:
        if hole.package in versions and hole.hits(versions[hole.package]):
            found.append(f"{hole.package} {versions[hole.package]} is locked: {hole.id}, {hole.problem}")
        found += [
            f"{requirement} lets {hole.affected} in: {hole.id}, {hole.problem}"
            for requirement in requirements
            if lock.normal(requirement.name) == hole.package and hole.admitted_by(requirement)
        ]
    return found


def requirements() -> list[str]:
    """Direct requirements of the project, its extras and its build."""
    data = tomllib.loads((lock.ROOT / "pyproject.toml").read_text("utf-8"))
    extras = data["project"]["optional-dependencies"].values()
    return [
        *data["project"]["dependencies"],
        *(r for extra in extras for r in extra),
        *data["build-system"]["requires"],
    ]


def main() -> int:
    """Print what was found."""
    holes, locked = read(), lock.read()
    found = audit(holes, locked, requirements())
    print("\n".join(found) or f"{len(locked)} packages, {len(holes)} known holes: none applies")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())

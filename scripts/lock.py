"""Write and read constraints.txt: the tested version of every package, with the hashes of its files.

python scripts/lock.py write             resolves pyproject.toml again, keeping the versions that are there (needs uv)
python scripts/lock.py select NAME,...   prints the requirements of these parts for pip's --require-hashes
python scripts/lock.py version NAME      prints the version of a package

A part is ``base``, ``build`` (what installs and builds), ``cuda`` (PyTorch's libraries for NVIDIA GPUs) or an extra.
`select` and `version` need the standard library alone, because they run before anything is installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "constraints.txt"
BUILD_TOOLS = ("editables", "packaging", "pip>=25.3", "setuptools", "versioneer", "wheel")
"""Beside the build back end of pyproject.toml: what pip needs to build without downloading anything by itself.
versioneer is for pyradiomics, which is built from its source."""
PYTHON = "3.11.5"
"""Oldest Python for which versions are looked for."""
HEADER = """\
# The versions that were tested together, and the SHA-256 of each file that the package index has of them.
# scripts/install.sh checks them. The line above a package has the parts that need it: base, build, cuda, or an extra.
# Written by: python scripts/lock.py write
"""
_CUDA = re.compile(r"(nvidia|cuda)-|triton$")
_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?==(?P<version>[^ ;\n]+)(?: *; *(?P<marker>[^\\\n]+))?")


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """One package of the lock."""

    name: str
    version: str
    marker: str
    """Environment marker (PEP 508), empty where the package is needed on every platform."""
    hashes: tuple[str, ...]
    """``sha256:...``, sorted."""
    parts: tuple[str, ...]

    def requirement(self) -> str:
        """Lines for a requirements file."""
        first = f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")
        return " \\\n    ".join((first, *(f"--hash={value}" for value in self.hashes)))


def normal(name: str) -> str:
    """Name of a package as the index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse(text: str) -> list[Pinned]:
    """Read the text of a lock, or of what uv prints."""
    found = []
    parts: tuple[str, ...] = ()
    for block in re.split(r"\n(?=[A-Za-z0-9#])", re.sub(r"\n +# .*", "", text)):
        if block.startswith("# for: "):
            parts = tuple(block.removeprefix("# for: ").strip().split(", "))
        if match := _PIN.match(block):
            hashes = tuple(sorted(re.findall(r"--hash=(sha256:[0-9a-f]{64})", block)))
            found.append(
                Pinned(
                    name=normal(match["name"]),
                    version=match["version"].strip(),
                    marker=(match["marker"] or "").strip(),
                    hashes=hashes,
                    parts=parts,
                )
            )
            parts = ()
    return found


def read() -> list[Pinned]:
    """Read constraints.txt."""
    return parse(LOCK.read_text("utf-8"))


def select(parts: set[str]) -> list[Pinned]:
    """Packages of these parts; ValueError for a part that the lock does not have."""
    packages = read()
    known = {part for package in packages for part in package.parts}
    if parts - known:
        raise ValueError(f"no such part: {', '.join(sorted(parts - known))}; there are {', '.join(sorted(known))}")
    return [package for package in packages if parts & set(package.parts)]


def write() -> None:
    """Resolve the dependencies of pyproject.toml and write the lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = sorted(project["project"]["optional-dependencies"])
    build = [*project["build-system"]["requires"], *BUILD_TOOLS]
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder, "pins.txt")
        kept = read() if LOCK.exists() else []
        pins.write_text("".join(f"{p.name}=={p.version}\n" for p in kept), "utf-8")
        tools = Path(folder, "build.in")
        tools.write_text("\n".join(build), "utf-8")
        source = str(ROOT / "pyproject.toml")
        every = resolve([source, str(tools), "--all-extras", "--generate-hashes"], pins)
        pins.write_text("".join(f"{p.name}=={p.version}\n" for p in every), "utf-8")
        needs = {"base": resolve([source], pins), "build": resolve([str(tools)], pins)}
        needs |= {extra: resolve([source, "--extra", extra], pins) for extra in extras}
    names = {part: {p.name for p in packages} for part, packages in needs.items()}
    for extra in extras:
        names[extra] -= names["base"]
    blocks = [HEADER]
    for package in sorted(every, key=lambda p: p.name):
        parts = [part for part in ("base", "build", *extras) if package.name in names[part]]
        if _CUDA.match(package.name):
            parts = ["cuda"]
        blocks.append(f"# for: {', '.join(parts)}\n{package.requirement()}\n")
    LOCK.write_text("".join(blocks), "utf-8")


def resolve(arguments: list[str], pins: Path) -> list[Pinned]:
    """Let uv resolve for all platforms at once."""
    command = ["uv", "pip", "compile", "--universal", "--no-config", "--quiet", "--no-header", "--no-annotate"]
    command += ["--python-version", PYTHON, "--constraint", str(pins), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [package for package in parse(done.stdout) if "sys_platform == 'emscripten'" not in package.marker]


def main(arguments: list[str]) -> int:
    """Run one of the commands."""
    match arguments:
        case ["write"]:
            write()
        case ["select", names]:
            print("\n".join(package.requirement() for package in select(set(names.split(",")))))
        case ["version", name]:
            print(next(package.version for package in read() if package.name == normal(name)))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

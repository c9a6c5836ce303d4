"""Run the benchmarks one after another: ``python -m benchmarks [--quick] [NAME...]``."""

from __future__ import annotations

import argparse
import pkgutil
import subprocess
import sys
from pathlib import Path

LONG = frozenset(
    {
        "container",
        "container_step",
        "dose",
        "dose_run",
        "evaluation",
        "flow_cases",
        "fuzz",
        "gpu",
        "listener",
        "soak",
        "structure_sets",
        "totalsegmentator",
    }
)
"""Not part of ``make bench``: takes hours, or needs an environment or a device of its own."""


def main() -> int:
    """Run the named benchmarks, or all; returns 1 if one failed."""
    here = Path(__file__).parent
    names = sorted(
        m.name
        for m in pkgutil.iter_modules([str(here)])
        if not m.name.startswith("_") and m.name not in LONG and "def main" in (here / f"{m.name}.py").read_text()
    )
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *names], metavar="NAME", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="smaller inputs: minutes instead of tens of minutes")
    options = parser.parse_args()
    failed = []
    for name in options.names or names:
        print(f"\n== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if options.quick else [])]
        if subprocess.run(command, check=False).returncode != 0:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

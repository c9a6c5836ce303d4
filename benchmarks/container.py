"""Builds the container with its real packages, and runs the demonstration in it.

``python -m benchmarks.container [--base TAR] [--build-arg NAME=VALUE] [--env NAME=VALUE] [--volume FROM:TO:ro]``

The base is a root file system with Python and pip as a tar archive; without one, debootstrap makes Debian 12. The
options ``--build-arg``, ``--env`` and ``--volume`` reach ``podman build``: a mirror of the package index, a folder
of wheels, a build of PyTorch. Needs podman with runc, some GB of disk, and a package index.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
CONTAINERS = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class Podman:
    """Podman with images in a folder of its own.

    Parameters
    ----------
    folder : Path
        Holds the configuration and all images.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "containers.conf").write_text(CONTAINERS)
        roots = f'graphroot = "{folder / "graph"}"\nrunroot = "{folder / "run"}"\n'
        (folder / "storage.conf").write_text(f'[storage]\ndriver = "overlay"\n{roots}')
        self._environment = os.environ | {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }

    def __call__(self, *arguments: str | Path) -> str:
        """Run podman; returns what it printed.

        Raises
        ------
        RuntimeError
            Podman failed; the message ends with its last lines.
        """
        done = subprocess.run(
            ["podman", *map(str, arguments)],
            env=self._environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"podman {arguments[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout


def debian(folder: Path) -> Path:
    """A minimal Debian 12 with Python and pip, as a tar archive; needs debootstrap and root."""
    tree, tar = folder / "debian", folder / "base.tar"
    packages = "--include=python3,python3-pip,ca-certificates"
    make = ["debootstrap", "--variant=minbase", packages, SUITE, str(tree), MIRROR]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["tar", "-C", str(tree), "-cf", str(tar), "."], check=True)
    shutil.rmtree(tree)
    return tar


def build_and_run(folder: Path, base: Path, build: list[str]) -> dict[str, object]:
    """Build the image on `base`, and run the demonstration in it without a network.

    Parameters
    ----------
    folder : Path
        Holds the images and the result of the demonstration.
    base : Path
        Tar archive of a root file system with Python and pip.
    build : list of str
        Further options of ``podman build``.

    Returns
    -------
    dict
        Seconds of building and of the demonstration, size of the image in GB, and what the demonstration recorded.
    """
    podman = Podman(folder)
    podman("import", base, "base")
    started = time.monotonic()
    podman(
        "build", "--pull-never", "--network", "host", "--build-arg", "BASE=localhost/base", "--tag", "made", *build, "."
    )
    built = time.monotonic()
    output = folder / "output"
    output.mkdir()
    output.chmod(0o777)
    run = ["run", "--rm", "--network", "none", "--volume", f"{output}:/data", "made"]
    podman(*run, "demo", "--out", "/data/demo")
    ran = time.monotonic()
    verified = podman(*run, "verify", "/data/demo/run")
    return {
        "user": podman(*run[:-1], "--entrypoint", "id", "made", "-un").strip(),
        "build, seconds": round(built - started),
        "demo, seconds": round(ran - built),
        "image, GB": round(int(podman("inspect", "--format", "{{.Size}}", "made")) / 1e9, 2),
        "objects": len(list((output / "demo" / "run").rglob("*.dcm"))),
        "verify": verified.strip().splitlines()[-1],
    }


def main() -> int:
    """Build, run, print; ends with 1 where podman is missing or something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="tar archive of a root file system with Python and pip")
    for name in ("--build-arg", "--env", "--volume"):
        parser.add_argument(name, action="append", default=[], help="passed to podman build")
    options = parser.parse_args()
    needed = ["podman", "runc", *([] if options.base else ["debootstrap"])]
    if missing := [name for name in needed if shutil.which(name) is None]:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    values = {"--build-arg": options.build_arg, "--env": options.env, "--volume": options.volume}
    build = [word for name, given in values.items() for value in given for word in (name, value)]
    with tempfile.TemporaryDirectory(prefix="ctenrich-container-") as name:
        folder = Path(name)
        try:
            facts = build_and_run(folder, options.base or debian(folder), build)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            print(error, file=sys.stderr)
            return 1
    print(json.dumps(facts, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

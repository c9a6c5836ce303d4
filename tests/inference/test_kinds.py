"""The registry of kinds: describing them imports no heavy package."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ("torch", "nnunetv2", "SimpleITK", "highdicom", "radiomics")


def test_describing_all_kinds_imports_nothing_heavy() -> None:
    script = (
        "import json, sys; from ctenrich.inference.kinds import segmenter_kinds; "
        f"kinds = segmenter_kinds(); print(json.dumps([sorted(kinds), [m for m in {HEAVY!r} if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    kinds, loaded = json.loads(done.stdout)
    assert {"bodypart", "expert", "nnunet"} <= set(kinds)
    assert loaded == []

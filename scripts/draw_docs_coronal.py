"""Draw docs/images/coronal-landmarks.png: a phantom, scored by the demonstration model.

python scripts/draw_docs_coronal.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from ctenrich.bodypart.landmarks import find_landmarks
from ctenrich.bodypart.regions import find_regions
from ctenrich.bodypart.scorer import open_bodypart
from ctenrich.phantom import PhantomOptions, as_records, make_phantom
from ctenrich.report.coronal import coronal_png
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.workspace import Workspace

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "coronal-landmarks.png"


def main() -> None:
    settings = Settings(segment=SegmentSettings(device="cpu"))
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        volume, series = as_records(make_phantom(PhantomOptions(seed=4)), workspace)
        scorer = open_bodypart("demo-bodypart", settings=settings)
        scores = scorer.score(volume, series, settings=settings, workspace=workspace)
        png = coronal_png(volume, find_landmarks(scores), find_regions(scores), workspace=workspace)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_bytes(png)


if __name__ == "__main__":
    main()

"""Run the notebooks on their generated patients and write them with their outputs as pages: docs/notebooks.

python scripts/render_notebooks.py [NAME ...]      all by default; some minutes

Pictures become WebP. What needs a running kernel (widgets, frames) is named in its place.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "notebooks"
NAMES = ("01_select", "02_enrich", "03_query", "04_view", "05_evaluate", "06_fair")


def page(name: str, cells: list[dict[str, Any]], pictures: Path) -> str:
    """Markdown of an executed notebook; its pictures are written."""
    parts: list[str] = []
    number = 0
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(re.sub(r"\((0\d_\w+)\.ipynb\)", r"(\1.md)", text))
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell.get("outputs", []):
            number += 1
            parts.append(shown(output, pictures / f"{name}-{number:02d}"))
    return "\n\n".join(part for part in parts if part) + "\n"


def shown(output: dict[str, Any], picture: Path) -> str:
    """Markdown of one output."""
    if output["output_type"] == "stream":
        text = "".join(output["text"]).strip()
        return f"```text\n{text}\n```" if output["name"] == "stdout" and text else ""
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data:
        return "*Here the notebook has controls that need a running kernel.*"
    if "image/png" in data:
        save_webp(base64.b64decode(data["image/png"]), picture.with_suffix(".webp"))
        return f"![Output of the cell above](images/{picture.name}.webp)"
    html = "".join(data.get("text/html", ""))
    if "<iframe" in html:
        return "*Here the notebook shows the page in a frame.*"
    if "<svg" in html:
        picture.with_suffix(".svg").write_text(html, "utf-8")
        return f"![Output of the cell above](images/{picture.name}.svg)"
    if html.startswith("<small>"):
        return ""
    if html:
        return re.sub(r"\n\s*", "\n", re.sub(r"<style.*?</style>", "", html, flags=re.S)).strip()
    return ""


def save_webp(png: bytes, path: Path) -> None:
    """Save a picture small."""
    from PIL import Image

    with Image.open(BytesIO(png)) as image:
        buffer = BytesIO()
        image.convert("RGB").save(buffer, "WEBP", quality=70, method=6)
    path.write_bytes(buffer.getvalue())


def main(names: list[str]) -> int:
    """Execute and write."""
    import papermill

    pictures = PAGES / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in names or NAMES:
            done = Path(folder, f"{name}.ipynb")
            source = ROOT / "notebooks" / f"{name}.ipynb"
            options = {"progress_bar": False, "kernel_name": "python3", "iopub_timeout": 120}
            papermill.execute_notebook(source, done, parameters={}, cwd=folder, **options)
            cells = json.loads(done.read_text("utf-8"))["cells"]
            for old in pictures.glob(f"{name}-*"):
                old.unlink()
            text = page(name, cells, pictures).replace(folder, "...")
            (PAGES / f"{name}.md").write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

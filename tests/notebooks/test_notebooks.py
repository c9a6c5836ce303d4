from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need_package

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = ("01_select", "02_enrich", "03_query", "04_view", "05_evaluate")


def cells(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))["cells"]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_short_and_clean(name: str) -> None:
    found = cells(name)
    assert [c for c in found if "parameters" in c["metadata"].get("tags", [])]
    for cell in (c for c in found if c["cell_type"] == "code"):
        text = "".join(cell["source"])
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert len(text.splitlines()) <= 15, text
        lines = [line for line in text.splitlines() if not line.strip().startswith("%")]
        tree = ast.parse("\n".join(lines) if "%pip" not in text else "pass")
        assert not [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]


@pytest.mark.long
def test_notebooks_run_top_to_bottom(tmp_path: Path) -> None:
    need_package("notebooks", "papermill")
    need_package("notebooks", "ipykernel")
    import papermill

    outputs = {}
    for name in NAMES:
        made = papermill.execute_notebook(
            FOLDER / f"{name}.ipynb",
            tmp_path / f"{name}.ipynb",
            parameters={"folder": str(tmp_path / "work")},
            cwd=tmp_path,
            progress_bar=False,
            kernel_name="python3",
        )
        text = json.dumps([c.get("outputs", []) for c in made.cells])
        outputs[name] = text
        assert '"output_type": "error"' not in text
    assert "image/webp" in outputs["04_view"] or "data:image/webp" in outputs["02_enrich"]
    assert (tmp_path / "work" / "run" / "report" / "index.html").is_file()

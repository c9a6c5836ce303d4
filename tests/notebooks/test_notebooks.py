from __future__ import annotations

import ast
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from ctenrich.catalog.schema import COLUMNS
from tests.conftest import need_package, need_program
from tests.publish.test_objects import program
from tests.services.bigquery_service import free_port, load_table, local_bigquery

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = ("01_select", "02_enrich", "03_query", "04_view", "05_evaluate")


def cells(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))["cells"]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_short_and_clean(name: str) -> None:
    found = cells(name)
    assert len([c for c in found if "parameters" in c["metadata"].get("tags", [])]) == 1
    for cell in (c for c in found if c["cell_type"] == "code"):
        text = "".join(cell["source"])
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert len(text.splitlines()) <= 15, text
        lines = [line for line in text.splitlines() if not line.strip().startswith("%")]
        tree = ast.parse("\n".join(lines) if "%pip" not in text else "pass")
        assert not [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.Lambda))]


@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_opens_on_colab_and_installs_itself(name: str) -> None:
    found = cells(name)
    badge = "".join(found[0]["source"]).splitlines()[0]
    assert re.fullmatch(
        rf"\[!\[Open in Colab\]\(https://colab\S+\.svg\)\]\(https://colab\S+/notebooks/{name}\.ipynb\)", badge
    )
    text = "\n".join("".join(c["source"]) for c in found if c["cell_type"] == "code")
    assert len(re.findall(r"^ +%pip install .*ctenrich", text, re.MULTILINE)) == 1
    assert "!pip" not in text
    parameters = {
        "".join(c["source"]) for n in NAMES for c in cells(n) if "parameters" in c["metadata"].get("tags", [])
    }
    assert len(parameters) == 1, "all notebooks share one parameters cell"
    if name in {"01_select", "02_enrich"}:
        assert "notebook.machine()" in text, "the GPU check"


def execute(name: str, folder: Path, **parameters: object) -> dict[str, str]:
    """Run a notebook; source of each cell -> its outputs as text."""
    need_package("notebooks", "papermill")
    need_package("notebooks", "ipykernel")
    import papermill

    made = papermill.execute_notebook(
        FOLDER / f"{name}.ipynb",
        folder / f"{name}.ipynb",
        parameters={"folder": str(folder / "work"), **parameters},
        cwd=folder,
        progress_bar=False,
        kernel_name="python3",
    )
    shown = {"".join(c["source"]): json.dumps(c.get("outputs", [])) for c in made.cells}
    assert not [text for text in shown.values() if '"output_type": "error"' in text]
    return shown


def output(shown: dict[str, str], part: str) -> str:
    (found,) = [text for source, text in shown.items() if part in source]
    return found


@pytest.mark.long
def test_notebooks_run_top_to_bottom(tmp_path: Path) -> None:
    shown = {name: execute(name, tmp_path) for name in NAMES}
    assert "This catalog costs nothing." in output(shown["01_select"], "query_cost")
    assert "1 series, 104 slices" in output(shown["02_enrich"], "run_cost")
    assert re.search(r"<small>\w+: done, \d", output(shown["02_enrich"], "steps.segment(")), "a bar that ended"
    assert "data:image/webp" in output(shown["02_enrich"], "notebook.planes(run, series)")
    for part in ("a file as it came", "place along the normal", "in the SEG that was written", "that differ from what"):
        assert "image/png" in output(shown["02_enrich"], part), "a picture for every stage"
    assert "data:image/png" in output(shown["02_enrich"], "notebook.coronal(run, series, scorer)")
    assert "<svg" in output(shown["02_enrich"], "notebook.slope_chart(")
    assert "application/vnd.jupyter.widget-view+json" in output(shown["04_view"], "slice_viewer")
    counts = output(shown["04_view"], '"highdicom": theirs')
    rows = [re.findall(r">([^<\\]*)</t[dh]>", row) for row in counts.split("<tr>")[1:]]
    rows = [row for row in rows if len(row) == 5]
    assert {row[1] for row in rows} >= {"heart", "aorta"}
    assert all(row[2] == row[3] == row[4] != "0" for row in rows), "ours, highdicom and dcmqi: one number a segment"
    overlaps = output(shown["05_evaluate"], "compare_products")
    heart = next(re.findall(r">([^<\\]*)</td>", row) for row in overlaps.split("<tr>") if ">heart<" in row)
    assert 0.5 < float(heart[5]) < 1, "Dice of the demonstration model and the planted heart"
    assert "image/png" in output(shown["05_evaluate"], "boxplot")
    assert "lung_end" in output(shown["05_evaluate"], "compare_with_masks")
    assert "image/png" in output(shown["03_query"], "axes.scatter")
    assert "data:image/png" in output(shown["04_view"], "notebook.coronal")
    reports = output(shown["04_view"], "tid1500reader")
    assert [name in reports for name in ("landmarks_sr", "regions_sr", "shape_sr", ">104<", "dcmqi")] == [True] * 5
    assert (tmp_path / "work" / "run" / "report" / "index.html").is_file()
    again = execute("02_enrich", tmp_path)
    assert "report/index.html" in output(again, "steps.report"), "a notebook that was restarted goes on from disk"


COLAB = """from pathlib import Path
def authenticate_user(*, project_id=None, **_):
    with Path({log!r}).open("a") as file:
        file.write(f"{{project_id}}\\n")
"""


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
def test_on_colab_with_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colab's login is a stub; BigQuery and Cloud Storage are services on this machine behind Google's own clients."""
    need_package("cloud", "google.cloud.storage")
    beside = Path(sys.executable).with_name("gcp-storage-emulator")
    binary = str(beside) if beside.is_file() else need_program("emulators", "gcp-storage-emulator")
    log, port = tmp_path / "colab.log", free_port()
    google_on_colab(tmp_path / "stub", log, monkeypatch)
    command = [binary, "start", "--host", "127.0.0.1", "--port", str(port), "--in-memory"]
    with program(command, port), local_bigquery(tmp_path) as endpoint:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", endpoint)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        publish_source(tmp_path, endpoint)
        given: dict[str, object] = {
            "project": "test-project",
            "dataset": "test-project.enriched",
            "bucket": "gs://results/run1",
            "segmenters": ["nnunet:demo-organs"],
            "price_per_hour": 2.5,
        }
        first = execute("01_select", tmp_path, **given)
        assert "bigquery:test-project" in output(first, "write_demo_study")
        assert "(list price)" in output(first, "query_cost")
        assert "104 slices" in output(first, "steps.select(")
        second = execute("02_enrich", tmp_path, **given)
        assert "4 objects, 4 sent now" in output(second, "publish_to")
        third = execute("03_query", tmp_path, **given)
        assert "tables" in output(third, "publish_bigquery(")
        here, there = (re.findall(r">(\d+\.\d+)<", output(third, part)) for part in (
            'steps.query(run, "lung_height")', 'there.run_query("lung_height")'))  # fmt: skip
        assert here == there
        assert len(here) >= 2, "top and height at least"
    assert log.read_text().split() == ["test-project"] * 3, "asked once a notebook that spends"


def google_on_colab(folder: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder / "google" / "colab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "auth.py").write_text(COLAB.format(log=str(log)))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def publish_source(folder: Path, endpoint: str) -> None:
    """The demo study as the archive has its own: a bucket of objects, and a row an object in dicom_all."""
    import duckdb
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    from ctenrich import steps
    from ctenrich.demo import write_demo_study

    write_demo_study(folder / "source" / "dicom")
    steps.index([folder / "source" / "dicom"], folder / "source" / "catalog.duckdb", collection_id="ctenrich_demo")
    with duckdb.connect(str(folder / "source" / "catalog.duckdb"), read_only=True) as db:
        rows = db.execute("SELECT * FROM dicom_all").to_arrow_table().to_pylist()
    client = storage.Client(project="test-project", credentials=AnonymousCredentials())
    bucket = client.create_bucket("archive")
    client.create_bucket("results")
    wanted = {c.name for c in COLUMNS}
    for number, row in enumerate(rows):
        path = Path(row["gcs_url"].removeprefix("file://"))
        bucket.blob(f"{number}.dcm").upload_from_filename(path)
        row["gcs_url"] = f"gs://archive/{number}.dcm"
    plain = [{k: v for k, v in json.loads(json.dumps(r, default=str)).items() if k in wanted} for r in rows]
    load_table(endpoint, "idc_v25.dicom_all", COLUMNS, plain)


@pytest.mark.long
def test_the_public_index_without_an_account(tmp_path: Path) -> None:
    need_package("idc", "idc_index_data")
    shown = execute("01_select", tmp_path, catalog="idc", collections=["nsclc_radiomics"])
    assert "This catalog costs nothing." in output(shown, "query_cost")
    found = output(shown, "steps.select(")
    assert "nsclc_radiomics" in found
    assert int(re.findall(r"(\d+) series", found)[-1]) > 400

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ctenrich.catalog.engine import arrow_table
from ctenrich.catalog.schema import COLUMNS
from ctenrich.notebook import Lab
from tests.conftest import need_package, need_program
from tests.publish.test_objects import program
from tests.services.bigquery_service import free_port, load_table, local_bigquery

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = ("01_select", "02_enrich", "03_query", "04_view", "05_evaluate", "06_fair")


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
    first = "".join(next(c["source"] for c in found if c["cell_type"] == "code"))
    assert re.search(r"^ +%pip install .*ctenrich\[colab\] @ git\+", first, re.MULTILINE)
    assert text.count("%pip") == 1
    assert "!pip" not in text
    parameters = {
        "".join(c["source"]) for n in NAMES for c in cells(n) if "parameters" in c["metadata"].get("tags", [])
    }
    assert len(parameters) == 1, "all notebooks share one parameters cell"
    lines = parameters.pop().splitlines()
    assert all("#@" in line for line in lines), "a form for every parameter"
    if name in {"01_select", "02_enrich"}:
        assert "notebook.machine(device)" in text, "the GPU check"


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_start_small_and_without_models_for_phantoms_on_patients(name: str) -> None:
    (cell,) = (c for c in cells(name) if "parameters" in c["metadata"].get("tags", []))
    values: dict[str, Any] = {}
    exec("".join(cell["source"]), values)
    assert values["source"] == "generated"
    assert 1 <= values["max_series"] <= 3
    assert values["segmenters"] == values["bodypart"] == "auto"
    assert Lab(source="idc:nsclc_radiomics").segmenter_list == ("expert",)
    assert "refused on real patients" in " ".join("".join(cells(name)[0]["source"]).split())


RUN = """
import sys, papermill
options = {"progress_bar": False, "kernel_name": "python3", "iopub_timeout": 60}
papermill.execute_notebook(*sys.argv[1:3], parameters={}, **options)
"""


def execute_alone(name: str, folder: Path, *, cells_run: int | None = None) -> list[dict[str, Any]]:
    """Run a notebook in a folder, with another HOME and a /dev/shm that cannot be written; its cells."""
    need_package("notebooks", "papermill")
    need_package("notebooks", "ipykernel")
    book = json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))
    book["cells"] = book["cells"][:cells_run]
    source, target = folder / "source.ipynb", folder / "done.ipynb"
    folder.mkdir(exist_ok=True)
    (folder / "home").mkdir(exist_ok=True)
    source.write_text(json.dumps(book))
    command = [sys.executable, "-W", "ignore", "-c", RUN, str(source), str(target)]
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0:
        hide = 'mount -t tmpfs -o ro,size=4k none /dev/shm && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", hide, "sh", *command]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "CTENRICH_"))}
    environment |= {"HOME": str(folder / "home"), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(target.read_text("utf-8"))["cells"]
    return found


def outputs(found: list[dict[str, Any]]) -> dict[str, str]:
    shown = {"".join(c["source"]): json.dumps(c.get("outputs", [])) for c in found}
    assert not [text for text in shown.values() if '"output_type": "error"' in text]
    return shown


def has_picture(cell: dict[str, Any]) -> bool:
    text = json.dumps(cell.get("outputs", []))
    return "image/png" in text or "<svg" in text


def check_01(shown: dict[str, str]) -> None:
    assert "This catalog costs nothing." in output(shown, "query_cost")
    assert "Start set" in output(shown, "notebook.flow")
    table = output(shown, "series_table")
    assert table.count(">54<") == 2
    excluded = output(shown, "cohort.excluded.parquet")
    assert "MISSING_SLICE" in excluded
    assert "LOCALIZER" in excluded


def check_02(shown: dict[str, str]) -> None:
    assert "2 series, 108 slices" in output(shown, "run_cost")
    assert re.search(r"<small>\w+: done, \d", output(shown, "steps.segment(")), "a bar that ended"
    for part in ("notebook.positions", "steps.segment(", "notebook.score_chart", "notebook.coronal"):
        assert "image/png" in output(shown, part), "a picture for every stage"
    assert "mesh volume, mL" in output(shown, "segments_table")
    assert ">True<" in output(shown, "checks_table")
    assert ">False<" not in output(shown, "checks_table")
    assert "<iframe" in output(shown, "show_report")


def check_03(shown: dict[str, str]) -> None:
    assert "application/vnd.jupyter.widget-view+json" in output(shown, "notebook.explorer")
    assert "heart" in output(shown, '"feature_over_cohort"')
    assert "lung_start" in output(shown, '"landmark_coverage"')
    means = [float(text) for text in re.findall(r">(\d+\.\d+)<", output(shown, "AS network_gy"))]
    lower, upper = means[1:3]
    assert lower < means[0] < upper, "the mean dose of the expert's heart, with its bounds"
    assert means[3] == pytest.approx(means[0], abs=1.0), "that of the network's heart"
    assert "largest_in_tolerances" in output(shown, '"cost_of_contours"')


def check_04(shown: dict[str, str]) -> None:
    assert "application/vnd.jupyter.widget-view+json" in output(shown, "slice_viewer")
    counts = output(shown, "compare_readers")
    rows = [re.findall(r">([^<\\]*)</t[dh]>", row) for row in counts.split("<tr>")[1:]]
    rows = [row for row in rows if len(row) == 5]
    assert {row[1] for row in rows} >= {"heart", "aorta"}
    assert all(row[2] == row[3] == row[4] != "0" for row in rows), "ctenrich, highdicom and dcmqi: one number"
    reports = output(shown, "read_reports")
    assert [name in reports for name in ("landmarks_sr", "regions_sr", "shape_sr", "dcmqi")] == [True] * 4


def check_05(shown: dict[str, str]) -> None:
    overlaps = output(shown, "pd.DataFrame(overlaps)[columns]")
    heart = next(re.findall(r">([^<\\]*)</td>", row) for row in overlaps.split("<tr>") if ">heart<" in row)
    assert 0.8 < float(heart[2]) < 1, "Dice of the demonstration model and the planted heart"
    assert "lung_end" in output(shown, "compare_with_masks")
    rows = [re.findall(r">([^<\\]*)</td>", row) for row in output(shown, "error, mm").split("<tr")]
    found = [row[3] for row in rows if len(row) == 4]
    assert len(found) > 10
    assert max(abs(float(mm)) for mm in found) < 12, "two slices"


def check_06(shown: dict[str, str]) -> None:
    assert {"generated_first", "generated_second"} <= set(
        re.findall(r">(generated_\w+)<", output(shown, "FROM organs"))
    )
    assert output(shown, "image and mask on one grid").count(">True<") == 2
    assert ">heart<" in output(shown, "pyradiomics.csv")
    assert output(shown, "FROM deep_features").count(">sample-network<") > 10, "a vector of every structure"
    assert "IBSI" in output(shown, "quantitative_measurements")
    assert "values in features.ttl" in output(shown, "steps.release")
    assert "@prefix" in output(shown, 'features.ttl")')
    files = re.findall(r"<td>(\d+)</td>", output(shown, '"files": len(files)'))
    assert len(files) >= 5
    assert "0" not in files, "every level has files"


CHECKS = dict(zip(NAMES, (check_01, check_02, check_03, check_04, check_05, check_06), strict=True))


def check(name: str, folder: Path) -> None:
    """Run a notebook in a folder, and check what it shows."""
    found = execute_alone(name, folder)
    assert any(map(has_picture, found[:5])), "the first picture by the fifth cell"
    shown = outputs(found)
    CHECKS[name](shown)
    plain = [o for c in found for o in c.get("outputs", []) if set(o.get("data", {})) == {"text/plain"}]
    assert plain == [], "no representation of an object as output"
    assert not list((folder / "home").glob("*.npy"))


@pytest.mark.long
@pytest.mark.parametrize("name", ["01_select", "03_query", "06_fair"])
def test_a_notebook_runs_alone_in_an_empty_folder(tmp_path: Path, name: str) -> None:
    """On the generated patients, whose first has no contours: a mixed cohort. 02 begins alone in the next test."""
    check(name, tmp_path)


def test_the_notebooks_after_the_second_make_what_is_missing_by_the_same_lines() -> None:
    """So that one of them that runs alone in an empty folder stands for all three."""
    made = []
    for name in ("03_query", "04_view", "05_evaluate"):
        (text,) = (t for t in ("".join(c["source"]) for c in cells(name)) if "notebook.Lab(" in t)
        lines = [line for line in text.splitlines() if not line.startswith("from ctenrich.")]
        end = lines.index("run = notebook.prepare_run(lab)")
        made.append(lines[: end + 1])
    assert made[0] == made[1] == made[2]


@pytest.mark.long
@pytest.mark.slowest
def test_a_notebook_whose_kernel_was_restarted_goes_on_and_others_after_it(tmp_path: Path) -> None:
    """02 in an empty folder, from its beginning once more, and 04 and 05 on what it left."""
    begun = execute_alone("02_enrich", tmp_path, cells_run=13)
    assert any(map(has_picture, begun[:5])), "the first picture by the fifth cell"
    assert not list((tmp_path / "home").glob("*.npy"))
    masks = sorted((tmp_path / "ctenrich-notebooks" / "run").rglob("*.npy"))
    times = [path.stat().st_mtime_ns for path in masks]
    assert len(masks) >= 4
    check("02_enrich", tmp_path)
    assert [path.stat().st_mtime_ns for path in masks if path.exists()] == [
        time for path, time in zip(masks, times, strict=True) if path.exists()
    ], "nothing was computed twice"
    check("04_view", tmp_path)
    check("05_evaluate", tmp_path)


def execute(name: str, folder: Path, **parameters: object) -> dict[str, str]:
    """Run a notebook with parameters; source of each cell -> its outputs as text."""
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
    return outputs(made.cells)


def output(shown: dict[str, str], part: str) -> str:
    (found,) = [text for source, text in shown.items() if part in source]
    return found


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
            "source": "bigquery:ctenrich_demo",
            "dataset": "test-project.enriched",
            "bucket": "gs://results/run1",
            "segmenters": "nnunet:demo-organs",
            "bodypart": "demo-bodypart",
            "price_per_hour": 2.5,
        }
        first = execute("01_select", tmp_path, **given)
        assert "(list price)" in output(first, "query_cost")
        assert ">104<" in output(first, "series_table")
        given |= {"source": "generated"}  # the patients are generated: nobody's identity is published
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
    (package / "output.py").write_text(
        "def serve_kernel_port_as_iframe(port, *, path, height):\n    print('frame of port', port, 'height', height)\n"
    )
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
        rows = arrow_table(db.execute("SELECT * FROM dicom_all")).to_pylist()
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
    shown = execute("01_select", tmp_path, source="idc:nsclc_radiomics", max_series=3)
    assert "This catalog costs nothing." in output(shown, "query_cost")
    assert output(shown, "series_table").count(">nsclc_radiomics<") == 3, "the limit"
    assert "4" in output(shown, "notebook.flow")

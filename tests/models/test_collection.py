"""Several models at once: folders of data sets, and all weights of a task from a server whose connections break."""

from __future__ import annotations

import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.support.totalsegmentator_models import write_dataset
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.errors import ModelError, UnknownModelError, UsageError
from ctenrich.inference.download import download
from ctenrich.inference.products import parse_segmenter
from ctenrich.inference.registry import resolve_model
from ctenrich.models import collection
from ctenrich.models.collection import find_data_sets, import_collection, pull_recipe_weights
from ctenrich.models.library import import_model, list_models, show_model, verify_model
from ctenrich.reasons import Reason
from ctenrich.recipes.networks import check_networks, open_networks
from ctenrich.recipes.totalsegmentator import TaskOptions, task_recipe
from ctenrich.recipes.weights import weights_folders
from ctenrich.settings import SegmentSettings

PART3 = "Dataset297_TotalSegmentator_total_3mm_1559subj"
PART6 = "Dataset298_TotalSegmentator_total_6mm_1559subj"
FACE = "Dataset303_face_1559subj"
PLAIN = "nnUNetTrainer__nnUNetPlans__3d_fullres"
LONG = "nnUNetTrainer_4000epochs_NoMirroring__nnUNetPlans__3d_fullres"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None) -> Path:
    """An empty folder of models for each test."""
    monkeypatch.setenv("CTENRICH_MODELS", str(tmp_path / "home"))
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "none"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as TotalSegmentator's results are: data sets beside files that are none."""
    folder = tmp_path_factory.mktemp("results")
    write_dataset(folder / PART6 / LONG, 117, (6, 6, 6), seed=1)
    write_dataset(folder / FACE / "nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres", 1, (1.5, 1.5, 1.5), seed=2)
    broken = write_dataset(folder / "Dataset299_body_1559subj" / PLAIN, 2, (1.5, 1.5, 1.5), seed=3)
    (broken / "fold_0" / "checkpoint_final.pth").write_bytes(b"half a download")
    (folder / "Dataset042_empty").mkdir()
    (folder / "tmp_download_file.zip").write_bytes(b"")
    return folder


def test_a_folder_is_imported_whole_and_a_second_time_nothing_changes(results: Path, home: Path) -> None:
    sets = find_data_sets(results)
    assert [p.name for p in sets] == [PART6, "Dataset299_body_1559subj", FACE]
    found = {model.name: model for model in import_collection(sets)}
    assert found[PART6].state == "imported"
    assert found[PART6].licence == "Apache-2.0"
    refused, broken = found[FACE].error, found["Dataset299_body_1559subj"].error
    assert refused is not None
    assert refused.reason is Reason.LICENCE_NOT_ACCEPTED
    assert "key, free for non-commercial use" in refused.message
    assert "models import FOLDER --accept-licence" in refused.hint
    assert broken is not None
    assert broken.reason is Reason.BAD_MODEL
    assert sorted(p.name for p in (home / "imported").iterdir()) == [PART6]
    record = home / "imported" / PART6 / "import.json"
    before = record.stat().st_mtime_ns
    states = [model.state for model in import_collection(sets, accept=True)]
    assert states == ["already imported", "not imported", "imported"]
    assert record.stat().st_mtime_ns == before


def test_the_recipe_runs_on_what_was_imported_and_pins_it(results: Path, home: Path) -> None:
    import_collection(find_data_sets(results))
    _, recipe = task_recipe("total", "fastest", TaskOptions())
    settings = SegmentSettings(device="cpu", threads=1)
    assert open_networks(recipe, weights_folders(), settings).sha256
    plans = home / "imported" / PART6 / LONG / "plans.json"
    plans.chmod(0o600)
    plans.write_text(plans.read_text() + " ")
    with pytest.raises(ModelError, match=r"HASH_MISMATCH.*changed after its import"):
        open_networks(recipe, weights_folders(), settings)


def test_the_command_names_every_data_set_and_fails_for_one(results: Path) -> None:
    done = CliRunner().invoke(app, ["models", "import", str(results)])
    assert done.exit_code == 1
    assert f"{PART6}: imported (Apache-2.0)" in done.output
    assert "2 of 3 were not imported" in done.output
    one = CliRunner().invoke(app, ["models", "import", str(results), "--axes", "RAS"])
    assert one.exit_code != 0
    assert "holds 3 data sets" in one.output


def test_a_model_of_mr_is_refused_by_its_name(tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "r" / "Dataset850_TotalSegMRI_part1_organs_1088subj"
    write_dataset(folder / PLAIN, 3, (2, 2, 2), seed=1)
    [model] = import_collection(find_data_sets(tmp_path / "r"))
    assert model.error is not None
    assert model.error.reason is Reason.WRONG_MODALITY
    assert not list((home / "imported").iterdir())


def test_two_trainers_of_one_data_set_are_imported_together(tmp_path: Path) -> None:
    _, recipe = task_recipe("total_v3", "small", TaskOptions())
    part = recipe.parts[0]
    folder = tmp_path / "r" / part.weights.folder
    write_dataset(folder / part.weights.subfolder, len(part.labels), (1.5, 1.5, 1.5), seed=5)
    write_dataset(folder / part.weights.subfolder.replace("ResEncUNetLPlans_8", "Plans"), 3, (1.5, 1.5, 1.5), seed=6)
    [model] = import_collection(find_data_sets(tmp_path / "r"))
    assert model.error is None
    shown = show_model(part.weights.folder)
    assert shown["trainers"] == sorted(path.name for path in folder.iterdir())
    assert {row["segment"] for row in shown["classes"]} <= set(recipe.segments.values())
    assert verify_model(part.weights.folder) == ()
    plans = resolve_model(part.weights.folder).folder / part.weights.subfolder / "plans.json"
    plans.write_text(plans.read_text() + " ")
    with pytest.raises(ModelError, match="changed after its import"):
        check_networks(replace(recipe, parts=(part,), crop=None), weights_folders())


OWN = "Dataset001_body"
"""The name of a folder of MOOSE that anybody may give to a model."""


def _body(folder: Path, names: tuple[str, ...]) -> Path:
    """A model in a folder of that name, with these labels."""
    made = write_dataset(folder / OWN / PLAIN, len(names), (6, 4, 4), seed=9)
    described = json.loads((made / "dataset.json").read_text())
    described["labels"] = {"background": 0} | {name: n for n, name in enumerate(names, start=1)}
    (made / "dataset.json").write_text(json.dumps(described))
    return folder / OWN


def test_the_labels_of_a_model_with_a_common_name_are_checked(tmp_path: Path) -> None:
    folder = _body(tmp_path / "a", ("Legs", "Body", "Head", "Tail"))
    [model] = import_collection((folder,))
    assert model.licence == ""
    assert model.error is not None
    assert model.error.reason is Reason.UNMAPPED_LABEL
    known = _body(tmp_path / "b", ("heart", "aorta"))
    [model] = import_collection((known,))
    assert (model.state, model.licence) == ("imported", "")


def test_a_licence_is_stated_only_for_what_is_certainly_the_published_model(tmp_path: Path) -> None:
    folder = _body(tmp_path, ("Legs", "Body", "Head", "Arms"))
    [model] = import_collection((folder,))
    assert (model.state, model.licence) == ("imported", "")
    assert {status.name: status.licence for status in list_models()}[OWN] == ""
    url = "https://github.com/ENHANCE-PET/MOOSE/releases/download/moosez-v.3.1.3/clin_ct_body_27112023.zip"
    (folder / "model_version.json").write_text(json.dumps({"url": url}))
    (folder / PLAIN / "plans.json").write_text((folder / PLAIN / "plans.json").read_text() + " ")
    [model] = import_collection((folder,))
    assert (model.state, model.licence) == ("imported", "CC-BY-4.0")
    assert {status.name: status.licence for status in list_models()}[OWN] == "CC-BY-4.0"


def test_labels_beyond_the_table_of_a_published_model_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / PART6 / LONG, 118, (6, 6, 6), seed=1)
    [model] = import_collection((tmp_path / PART6,))
    assert model.error is not None
    assert model.error.reason is Reason.UNMAPPED_LABEL


# ---------------------------------------------------------------- pull


class Server(ThreadingHTTPServer):
    files: dict[str, bytes]
    breaks = 0
    requests: list[tuple[str, str | None]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        name, wanted = self.path.rpartition("/")[2], self.headers.get("Range")
        server.requests.append((name, wanted))
        if name not in server.files:
            self.send_error(404)
            return
        body = server.files[name][int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0 :]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.breaks > 0:
            server.breaks -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return None


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    httpd = Server(("127.0.0.1", 0), Handler)
    httpd.files, httpd.requests = {}, []
    for number, name in enumerate((PART3, PART6)):
        made = write_dataset(tmp_path / "made" / name / LONG, 117, (3.0 * number + 3,) * 3, seed=number)
        file = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(p for p in made.rglob("*") if p.is_file()):
                archive.write(path, path.relative_to(tmp_path / "made"))
        httpd.files[file.name] = file.read_bytes()
    monkeypatch.setattr(collection, "download", lambda *args, **more: download(*args, pause=0, tries=3, **more))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_all_weights_of_a_task_are_pulled_over_a_line_that_breaks(server: Server, home: Path) -> None:
    spec = parse_segmenter("totalsegmentator:total:fast:roi=liver")
    server.breaks = 4
    with pytest.raises(Exception, match="RETRY_EXHAUSTED"):
        pull_recipe_weights(spec, url=server.url)
    assert len(server.requests) == 3
    found = pull_recipe_weights(spec, url=server.url)
    assert [(m.name, m.state, m.licence) for m in found] == [
        (PART6, "imported", "Apache-2.0"),
        (PART3, "imported", "Apache-2.0"),
    ]
    names = [name for name, _ in server.requests]
    assert names == [f"{PART6}.zip"] * 5 + [f"{PART3}.zip"]
    ranges = [wanted for _, wanted in server.requests]
    assert ranges[0] is None
    assert all(wanted is not None for wanted in ranges[1:5]), "bytes that are here are not fetched again"
    assert list((home / "downloads").iterdir()) == []
    count = len(server.requests)
    assert [m.state for m in pull_recipe_weights(spec, url=server.url)] == ["already imported"] * 2
    assert len(server.requests) == count
    _, recipe = task_recipe("total", "fast", TaskOptions(roi=("liver",)))
    assert open_networks(recipe, weights_folders(), SegmentSettings(device="cpu", threads=1)).sha256


def test_the_first_import_of_a_file_pins_it(server: Server, tmp_path: Path) -> None:
    spec = parse_segmenter("totalsegmentator:total:fastest")
    pull_recipe_weights(spec, url=server.url)
    other = tmp_path / f"{PART6}.zip"
    other.write_bytes(server.files[f"{PART6}.zip"] + b"more")
    with pytest.raises(ModelError, match=f"HASH_MISMATCH.*pinned for {PART6}"):
        import_model(other)
    assert resolve_model(PART6).folder.is_dir()


def test_a_file_that_is_no_model_is_not_kept_and_one_that_is_missing_is_named(server: Server, home: Path) -> None:
    spec = parse_segmenter("totalsegmentator:total:fastest")
    server.files[f"{PART6}.zip"] = b"a page that says: quota exceeded"
    with pytest.raises(ModelError, match="neither a folder nor a zip"):
        pull_recipe_weights(spec, url=server.url)
    assert list((home / "downloads").iterdir()) == []
    del server.files[f"{PART6}.zip"]
    with pytest.raises(ModelError, match="404"):
        pull_recipe_weights(spec, url=server.url)


def test_weights_that_need_a_key_are_never_asked_for(server: Server) -> None:
    with pytest.raises(UnknownModelError, match=r"NOT_FOUND.*Dataset303_face.*not published openly \(key") as caught:
        pull_recipe_weights(parse_segmenter("totalsegmentator:face"), url=server.url)
    assert "import your own folder" in caught.value.hint
    with pytest.raises(UnknownModelError, match="Dataset301"):  # after a crop whose weights are published
        pull_recipe_weights(parse_segmenter("totalsegmentator:heartchambers_highres"), url=server.url)
    assert server.requests == []
    with pytest.raises(UsageError, match="the kind nnunet run no recipe"):
        pull_recipe_weights(parse_segmenter("nnunet:demo-organs"))

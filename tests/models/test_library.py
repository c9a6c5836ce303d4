"""Models by name: the registry, licences, download with resume, import, verify; archives that want out are refused."""

from __future__ import annotations

import json
import shutil
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.support.small_models import v2_dataset, write_v2

from ctenrich.errors import CtenrichError, ModelError, RetryExhaustedError
from ctenrich.inference.download import download
from ctenrich.inference.registry import ModelKind, accept_licence, models_home, registry, resolve_model
from ctenrich.models import library as manage
from ctenrich.models.library import import_model, list_models, pull_model, show_model, verify_model
from ctenrich.nnunet.conventions import Conventions
from ctenrich.nnunet.segmenter import open_nnunet
from ctenrich.reasons import Reason
from ctenrich.settings import Settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None) -> Path:
    """An empty folder of models for each test."""
    monkeypatch.setenv("CTENRICH_MODELS", str(tmp_path / "home"))
    return tmp_path / "home"


def zipped(folder: Path, file: Path) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(folder.parent))
    return file


# ---------------------------------------------------------------- the registry


def test_every_entry_says_where_it_is_from_and_its_licence() -> None:
    assert {"demo-organs", "demo-bodypart", "Task055_SegTHOR", "bpr"} <= set(registry())
    for entry in registry().values():
        assert entry.licence
        assert entry.licence_url.startswith("https://")
        assert entry.package or (entry.url.startswith("https://") and entry.source.startswith("https://doi.org/"))
        assert entry.demo == bool(entry.package)
    thorax = registry()["Task055_SegTHOR"]
    assert thorax.accept
    assert thorax.licence == "CC-BY-NC-4.0"
    assert thorax.kind is ModelKind.NNUNET_V1
    assert dict(thorax.labels) == {"esophagus": 1, "heart": 2, "trachea": 3, "aorta": 4}


def test_names_folders_and_what_is_missing(tmp_path: Path) -> None:
    folder = write_v2(tmp_path / "Some Model!")
    assert resolve_model(str(folder)).name == "Some_Model_"
    with pytest.raises(ModelError, match="ctenrich models pull bpr") as caught:
        resolve_model("bpr")
    assert caught.value.reason is Reason.NOT_FOUND
    with pytest.raises(ModelError):
        resolve_model("no-such-model")


# ---------------------------------------------------------------- import


@pytest.mark.parametrize("packed", [True, False])
def test_imported_models_work_by_name(tmp_path: Path, packed: bool) -> None:
    folder = write_v2(tmp_path / "Dataset900" / "nnUNetTrainer__plans__3d_fullres")
    source = zipped(tmp_path / "Dataset900", tmp_path / "thorax.zip") if packed else folder
    status = import_model(source, name=None if packed else "thorax")
    assert status.name == "thorax"
    assert status.kind == "nnunet-v2"
    assert "thorax" in [row.name for row in list_models()]
    assert show_model("thorax")["labels"] == {"heart": 1, "aorta": 2, "trachea": 3}
    assert verify_model("thorax") == ()
    shutil.rmtree(folder)
    assert open_nnunet("thorax", settings=Settings()).info.name == "thorax"


def test_import_records_the_axes_and_who_states_them(tmp_path: Path) -> None:
    """Those given, else those found where the model came from: the folder above a trainer's folder loses its name."""
    trainer = Path("Dataset297_TotalSegmentator_total_3mm_1559subj") / "nnUNetTrainer__plans__3d_fullres"
    published = write_v2(tmp_path / trainer, stated="")
    import_model(published, name="fast")
    shown = show_model("fast")
    assert (shown["axes"], shown["step"]) == ("RAS", 0.8)
    assert "TotalSegmentator" in shown["axes_from"]
    assert str(open_nnunet("fast", settings=Settings()).product) == "nnunet:fast:3d_fullres:0:mirror:axes=RAS:step=0.8"
    import_model(published, name="fast", conventions=Conventions(axes="LAS", step=0.5))
    shown = show_model("fast")
    assert (shown["axes"], shown["axes_from"], shown["step"]) == ("LAS", "models import --axes", 0.5)
    import_model(
        zipped(write_v2(tmp_path / "x" / "m", stated=""), tmp_path / "clin_ct_ribs_ras_08052025.zip"), name="ribs"
    )
    assert show_model("ribs")["axes"] == "RAS"
    import_model(write_v2(tmp_path / "own", stated=""))
    assert "not stated" in show_model("own")["axes"]
    with pytest.raises(ModelError) as caught:
        open_nnunet("own", settings=Settings())
    assert caught.value.reason is Reason.UNKNOWN_AXES
    assert "models check own --axes" in caught.value.hint
    import_model(resolve_model("own").folder, name="own", conventions=Conventions(axes="RAS"))
    assert open_nnunet("own", settings=Settings()).axes == "RAS"


@pytest.mark.parametrize("name", ["fold_0/checkpoint_final.pth", "plans.json", "dataset.json"])
def test_an_imported_model_whose_files_changed_is_refused_before_work(tmp_path: Path, name: str) -> None:
    import_model(write_v2(tmp_path / "m"), name="m")
    path = resolve_model("m").folder / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ModelError, match=Path(name).name) as caught:
        open_nnunet("m", settings=Settings())
    assert caught.value.reason is Reason.HASH_MISMATCH
    import_model(tmp_path / "m", name="m")
    assert open_nnunet("m", settings=Settings()).info.name == "m"


def test_show_states_the_code_and_side_of_every_class(tmp_path: Path) -> None:
    labels = {"background": 0, "lung_left": 1, "aorta": 2, "flux capacitor": 3, "lung_middle_lobe_right": 4}
    rows = show_model(str(write_v2(tmp_path / "m", dataset=v2_dataset(labels))))["classes"]
    assert [(row["value"], row["label"], row["side"]) for row in rows] == [
        ("1", "lung_left", "Left"), ("2", "aorta", ""), ("3", "flux capacitor", ""),
        ("4", "lung_middle_lobe_right", "Right"),
    ]  # fmt: skip
    assert [row["code"] for row in rows][:3] == ["39607008 SCT Lung", "15825003 SCT Aorta", ""]


def test_labels_of_ctenrich_toml_replace_those_of_the_model(tmp_path: Path) -> None:
    labels = {"background": 0, "Herz": 1, "Aorta ascendens et descendens": 2, "Luftroehre": 3}
    stated = 'axes = "LPS"\n[labels]\nheart = 1\naorta = 2\ntrachea = 3\n'
    folder = write_v2(tmp_path / "m", dataset=v2_dataset(labels), stated=stated)
    assert [name for _, name, _ in open_nnunet(str(folder), settings=Settings()).names] == ["heart", "aorta", "trachea"]
    for wrong in ("heart = 1", "heart = 1\naorta = 2\ntrachea = 4", 'heart = "one"'):
        (folder / "ctenrich.toml").write_text(f'axes = "LPS"\n[labels]\n{wrong}\n')
        with pytest.raises(ModelError, match=r"ctenrich\.toml") as caught:
            open_nnunet(str(folder), settings=Settings())
        assert caught.value.reason is Reason.BAD_MODEL


def test_verify_finds_changed_files(tmp_path: Path, home: Path) -> None:
    import_model(write_v2(tmp_path / "m"), name="m")
    weights = next((home / "converted").glob("m-*/3d_fullres/fold_0.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x00\x00\x80\x7f")
    found = verify_model("m")
    assert [issue.rule for issue in found] == ["model.weights"]
    assert verify_model("nothing-here")[0].rule == "model.files"


def test_a_failed_import_leaves_nothing(tmp_path: Path, home: Path) -> None:
    folder = write_v2(tmp_path / "m")
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"junk")
    with pytest.raises(ModelError):
        import_model(folder, name="m")
    assert list((home / "imported").iterdir()) == []
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(ModelError, match="neither a folder nor a zip"):
        import_model(tmp_path / "text.zip")
    with pytest.raises(ModelError):
        import_model(folder, name="../outside")


def write_entry(file: Path, name: str, data: bytes = b"x", link: bool = False) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = (stat.S_IFLNK | 0o777) << 16 if link else 0o644 << 16
        archive.writestr(info, data)
    return file


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a\\..\\evil", "C:/evil"])
def test_archives_stay_in_their_folder(tmp_path: Path, home: Path, name: str) -> None:
    with pytest.raises(CtenrichError) as caught:
        import_model(write_entry(tmp_path / "m.zip", name))
    assert caught.value.reason is Reason.UNSAFE_PATH
    assert not list(tmp_path.rglob("evil"))
    assert list((home / "imported").iterdir()) == []


def test_links_and_bombs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CtenrichError) as caught:
        import_model(write_entry(tmp_path / "l.zip", "plans.json", b"/etc/passwd", link=True))
    assert caught.value.reason is Reason.UNSAFE_PATH
    with pytest.raises(CtenrichError) as caught:
        import_model(write_entry(tmp_path / "b.zip", "plans.json", bytes(50_000_000)))
    assert caught.value.reason is Reason.DECOMPRESSION_BOMB
    folder = write_v2(tmp_path / "m")
    (folder / "fold_1").symlink_to("/etc")
    with pytest.raises(CtenrichError) as caught:
        import_model(folder)
    assert caught.value.reason is Reason.UNSAFE_PATH


def test_licences_are_accepted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_v2(tmp_path / "m")
    with pytest.raises(ModelError, match=r"CC-BY-NC-4\.0") as caught:
        import_model(folder, name="Task055_SegTHOR")
    assert caught.value.reason is Reason.LICENCE_NOT_ACCEPTED
    assert import_model(folder, name="Task055_SegTHOR", accept=True).installed
    assert json.loads((models_home() / "licences.json").read_text()) == {"Task055_SegTHOR": "CC-BY-NC-4.0"}
    assert resolve_model("Task055_SegTHOR").entry is not None
    (models_home() / "licences.json").unlink()
    with pytest.raises(ModelError) as caught:
        resolve_model("Task055_SegTHOR")
    assert caught.value.reason is Reason.LICENCE_NOT_ACCEPTED
    accept_licence(registry()["Task055_SegTHOR"])
    assert resolve_model("Task055_SegTHOR").name == "Task055_SegTHOR"


def test_the_first_import_pins_the_file(tmp_path: Path) -> None:
    first = zipped(write_v2(tmp_path / "one" / "m"), tmp_path / "a.zip")
    second = zipped(write_v2(tmp_path / "two" / "m", folds=("0", "1")), tmp_path / "b.zip")
    import_model(first, name="Task055_SegTHOR", accept=True)
    assert show_model("Task055_SegTHOR")["imported"]["sha256"]
    with pytest.raises(ModelError) as caught:
        import_model(second, name="Task055_SegTHOR")
    assert caught.value.reason is Reason.HASH_MISMATCH
    import_model(first, name="Task055_SegTHOR")


# ---------------------------------------------------------------- download


class Server(ThreadingHTTPServer):
    data = b""
    breaks = 0
    requests: list[str | None]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        wanted = self.headers.get("Range")
        server.requests.append(wanted)
        if self.path != "/model.zip":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = server.data[start:]
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
def server() -> Iterator[Server]:
    httpd = Server(("127.0.0.1", 0), Handler)
    httpd.requests = []
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_downloads_go_on_where_they_stopped(tmp_path: Path, server: Server) -> None:
    server.data, server.breaks = bytes(range(256)) * 100, 2
    download(f"http://127.0.0.1:{server.server_port}/model.zip", tmp_path / "m.zip", pause=0.01)
    assert (tmp_path / "m.zip").read_bytes() == server.data
    assert server.requests == [None, "bytes=12800-", "bytes=19200-"]
    server.breaks = 9
    with pytest.raises(RetryExhaustedError):
        download(f"http://127.0.0.1:{server.server_port}/model.zip", tmp_path / "n.zip", tries=3, pause=0.01)
    for url in (f"http://127.0.0.1:{server.server_port}/other", "file:///etc/passwd", "ftp://x/y"):
        with pytest.raises(ModelError) as caught:
            download(url, tmp_path / "o.zip")
        assert caught.value.reason is Reason.NOT_FOUND


def test_pull_downloads_checks_and_imports(tmp_path: Path, server: Server, home: Path) -> None:
    server.data = zipped(write_v2(tmp_path / "m"), tmp_path / "m.zip").read_bytes()
    url = f"http://127.0.0.1:{server.server_port}/model.zip"
    with pytest.raises(ModelError) as caught:
        pull_model("Task055_SegTHOR", url=url)
    assert caught.value.reason is Reason.LICENCE_NOT_ACCEPTED
    assert server.requests == [], "nothing is fetched before the licence is accepted"
    assert pull_model("Task055_SegTHOR", url=url, accept=True).installed
    assert not (home / "downloads" / "Task055_SegTHOR.zip").exists()
    server.data = server.data + b"more"
    with pytest.raises(CtenrichError) as refused:
        pull_model("Task055_SegTHOR", url=url)
    assert refused.value.reason is Reason.HASH_MISMATCH
    with pytest.raises(ModelError):
        pull_model("demo-organs")


def test_the_body_part_model_imports_with_its_files_at_the_top(tmp_path: Path, shared_model: Any) -> None:
    inner = tmp_path / "x" / "public_bpr_model"
    shutil.copytree(shared_model("bpr-lung1-demo"), inner)
    status = import_model(zipped(inner.parent, tmp_path / "public_bpr_model.zip"))
    assert status.name == "bpr"
    assert (resolve_model("bpr").folder / "model.pt").is_file()
    assert verify_model("bpr") == ()
    assert manage.list_models()


def test_body_part_models_are_held_to_their_keys(tmp_path: Path, shared_model: Any) -> None:
    """A state dict that another network wrote is refused at import, and found by verify if it came another way."""
    import torch

    own = shutil.copytree(shared_model("bpr-lung1-demo"), tmp_path / "own-bpr")
    assert import_model(own).kind == "bodypart"
    assert verify_model("own-bpr") == ()
    shown = show_model("own-bpr")
    assert shown["kind"] == "bodypart"
    assert {"lung_start", "lung_end"} <= set(shown["landmarks"])
    (own / "model.pt").chmod(0o600)
    weights = torch.load(own / "model.pt", weights_only=True)
    torch.save(weights | {"fc8.weight": torch.zeros(1, 1)}, own / "model.pt")
    with pytest.raises(ModelError, match=r"fc8\.weight") as caught:
        import_model(own, name="other")
    assert caught.value.reason is Reason.BAD_MODEL
    assert not (models_home() / "imported" / "other").exists()
    place = resolve_model("own-bpr").folder
    (place / "model.pt").chmod(0o600)
    shutil.copy(own / "model.pt", place / "model.pt")
    assert [issue.rule for issue in verify_model("own-bpr")] == ["model.files"]
    (place / "model.pt").unlink()
    assert [issue.rule for issue in verify_model("own-bpr")] == ["model.files"]


def test_the_demonstration_body_part_model_is_whole() -> None:
    assert verify_model("demo-bodypart") == ()
    assert show_model("demo-bodypart")["image axes"] == "viewer"

"""What notebooks need in one call: parameters, Drive, the report's server, pictures without the optional packages."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType

import pytest

from ctenrich.errors import UsageError
from ctenrich.notebook import Lab, catalog_of, machine, mount_drive, prepare_doses
from ctenrich.notebook import embed as embedding
from ctenrich.notebook import output as shown
from ctenrich.phantom import PhantomOptions, write_phantom_study
from ctenrich.progress import SILENT
from ctenrich.reasons import Reason


def test_real_patients_get_their_experts_contours_and_no_demonstration_model() -> None:
    real = Lab(source="idc:nsclc_radiomics", patients="LUNG1-001, LUNG1-005")
    assert real.segmenter_list == ("expert",)
    assert real.bodypart_model == "none"
    assert real.query == "select_idc_series"
    assert real.values == {"patients": ["LUNG1-001", "LUNG1-005"], "collections": ["nsclc_radiomics"]}
    made = Lab()
    assert made.segmenter_list == ("nnunet:demo-organs", "expert")
    assert made.bodypart_model == "demo-bodypart"
    assert made.values == {"patients": []}
    asked = Lab(segmenters="totalsegmentator:total:fast, expert", bodypart="none")
    assert asked.segmenter_list == ("totalsegmentator:total:fast", "expert")
    assert asked.bodypart_model == "none"


@pytest.mark.parametrize(
    ("source", "project", "catalog"),
    [("idc:c4kc_kits", "", "idc"), ("bigquery:c4kc_kits", "p", "bigquery:p"), ("bigquery:c4kc_kits", "", "bigquery")],
)
def test_catalogs_of_public_collections(tmp_path: Path, source: str, project: str, catalog: str) -> None:
    assert catalog_of(Lab(folder=str(tmp_path), source=source, project=project)) == catalog


@pytest.mark.parametrize(("source", "reason"), [("idc:", Reason.BAD_PARAMETER), ("no/such/folder", Reason.NOT_FOUND)])
def test_a_source_that_is_none_is_refused(tmp_path: Path, source: str, reason: Reason) -> None:
    with pytest.raises(UsageError) as caught:
        catalog_of(Lab(folder=str(tmp_path), source=source))
    assert caught.value.reason is reason


@pytest.mark.parametrize("source", ["idc:nsclc_radiomics", "bigquery:nsclc_radiomics"])
def test_public_collections_have_no_doses(tmp_path: Path, source: str) -> None:
    assert prepare_doses(Lab(folder=str(tmp_path), source=source)) is None


def test_a_folder_without_a_treatment_has_no_doses(tmp_path: Path) -> None:
    images = PhantomOptions(seed=7, rows=16, columns=16, pixel_spacing=(20.0, 20.0), slices=6, slice_spacing=40.0)
    write_phantom_study(tmp_path / "images", images)
    lab = Lab(folder=str(tmp_path / "work"), source=str(tmp_path / "images"))
    assert prepare_doses(lab, SILENT) is None
    assert not (tmp_path / "work" / "treatments.parquet").exists()


def test_drive_is_mounted_on_colab_only_and_only_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert mount_drive("work", wanted=True) == Path("work")
    mounted: list[str] = []
    drive = ModuleType("google.colab.drive")
    drive.mount = mounted.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "google.colab.drive", drive)
    from ctenrich.notebook import machines

    monkeypatch.setattr(machines, "on_colab", lambda: True)
    monkeypatch.setattr(machines, "_DRIVE", tmp_path / "drive")
    assert mount_drive("work", wanted=False) == Path("work")
    assert mounted == []
    assert mount_drive("work", wanted=True) == tmp_path / "drive" / "MyDrive" / "work"
    assert mounted == [str(tmp_path / "drive")]
    assert (tmp_path / "drive" / "MyDrive" / "work").is_dir()


def test_the_gpu_check_ends_in_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    from ctenrich.notebook import machines

    monkeypatch.setattr(machines, "_gpu", str)
    assert "run on the CPU" in machine("auto").data
    assert "no GPU was found" in machine("cuda:0").data
    monkeypatch.setattr(machines, "_gpu", lambda: "Tesla T4")
    assert "The networks run on Tesla T4." in machine("auto").data
    assert "run on the CPU" in machine("cpu").data


def read(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=10) as answer:
        content: bytes = answer.read()
    return content


def test_the_reports_server_needs_the_secret_and_stays_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "index.html").write_text("the report")
    (tmp_path / "ledger.sqlite").write_text("not the report")
    port, secret = embedding._serve(folder)
    root = f"http://127.0.0.1:{port}"
    assert read(f"{root}/{secret}/index.html") == b"the report"
    for path in ("/index.html", "/", f"/{secret}x/index.html", f"/{secret}/../ledger.sqlite", f"/{secret}/none.html"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            read(root + path)
        assert caught.value.code == 404
        caught.value.close()


def test_frames_use_colabs_proxy_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, str, str]] = []
    output = ModuleType("google.colab.output")
    output.serve_kernel_port_as_iframe = lambda port, path, height: asked.append((port, path, height))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    here = embedding._frame(8000, "/s/index.html?a=1&b=2", 500, "the report")
    assert 'src="http://localhost:8000/s/index.html?a=1&amp;b=2"' in here.data
    monkeypatch.setattr(embedding, "on_colab", lambda: True)
    embedding._frame(8000, "/s/index.html", 500, "the report")
    assert asked == [(8000, "/s/index.html", "500")]


def test_charts_without_matplotlib_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"needs the package matplotlib \(pip install 'ctenrich\[colab\]'"):
        shown.pyplot()

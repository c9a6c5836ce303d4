"""3D Slicer cannot be run here: a substitute for its modules records what the script asks of it."""

from __future__ import annotations

import ast
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest
from typer.testing import CliRunner

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.errors import ToolError, UsageError
from ctenrich.reasons import Reason
from ctenrich.view import RunView
from ctenrich.view.desktop import SCRIPT, open_in_slicer, slicer_arguments
from ctenrich.workspace import Workspace
from tests.support.cohorts import make_cohort


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("slicer")
    made = steps.start(make_cohort(folder, 1), folder / "run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment, steps.measure, steps.encode):
        stage(made)
    return made.workspace


@pytest.fixture
def slicer(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """The module ``slicer``, and ``DICOMLib`` in it."""
    made, library = MagicMock(), ModuleType("DICOMLib")
    library.DICOMUtils = made.dicom  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "slicer", made)
    monkeypatch.setitem(sys.modules, "DICOMLib", library)
    return made


def start(arguments: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_script_needs_nothing_of_ctenrich() -> None:
    """Slicer's Python has no ctenrich: only the standard library and Slicer's own modules are imported."""
    tree = ast.parse(SCRIPT.read_text("utf-8"))
    names = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    names |= {str(n.module).split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert names - sys.stdlib_module_names == {"slicer", "DICOMLib"}


def test_ct_and_masks_of_every_product(
    run: Workspace, slicer: MagicMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = RunView(run)
    ct, *products = slicer_arguments(view, view.series[0], tmp_path)
    assert ct.name == "ct.nii"
    assert [folder.name for folder in products] == ["expert"]
    start([ct, *products], monkeypatch)
    slicer.util.loadVolume.assert_called_once_with(str(ct))
    display = slicer.util.loadVolume.return_value.GetDisplayNode.return_value
    display.SetWindowLevel.assert_called_once_with(400, 40)
    files = sorted(products[0].glob("*.nrrd"))
    label_map = products[0] / "labels.seg.nrrd"
    loaded = [label_map] if label_map in files else files
    asked = slicer.util.loadSegmentation if label_map in files else slicer.util.loadLabelVolume
    assert [call.args[0] for call in asked.call_args_list] == [str(path) for path in loaded]


def test_segments_that_overlap_are_one_segmentation_with_their_names(
    slicer: MagicMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "expert"
    folder.mkdir()
    for name in ("001_heart.nrrd", "012_lung_left.nrrd", "segments.json"):
        (folder / name).write_bytes(b"")
    start([tmp_path / "ct.nii", folder], monkeypatch)
    node = slicer.mrmlScene.AddNewNodeByClass.return_value
    slicer.mrmlScene.AddNewNodeByClass.assert_called_once_with("vtkMRMLSegmentationNode", "expert")
    named = node.GetSegmentation.return_value.GetNthSegment.return_value.SetName
    assert [call.args[0] for call in named.call_args_list] == ["heart", "lung_left"]
    node.CreateClosedSurfaceRepresentation.assert_called_once_with()


def test_a_dicom_folder_and_a_seg(slicer: MagicMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = MagicMock()
    database.patients.return_value = ["1"]
    database.studiesForPatient.return_value = ["1.1"]
    database.seriesForStudy.return_value = ["1.2", "1.3"]
    slicer.dicom.TemporaryDICOMDatabase.return_value = nullcontext(database)
    volumes: list[Any] = [MagicMock(), MagicMock()]
    for node, size in zip(volumes, (10, 99), strict=True):
        node.GetImageData.return_value.GetNumberOfPoints.return_value = size
    slicer.util.getNodesByClass.side_effect = [[], volumes]
    seg = tmp_path / "objects" / "seg.dcm"
    start([tmp_path, seg], monkeypatch)
    assert [call.args[0] for call in slicer.dicom.importDicom.call_args_list] == [str(tmp_path), str(seg.parent)]
    slicer.dicom.loadSeriesByUID.assert_called_once_with(["1.2", "1.3"])
    slicer.util.setSliceViewerLayers.assert_called_once_with(background=volumes[1], fit=True)


def test_the_command_starts_slicer(run: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in Slicer's place writes down its arguments, and whether the files were there."""
    program, seen = tmp_path / "Slicer", tmp_path / "seen.txt"
    program.write_text(f'#!/bin/sh\nfor a in "$@"; do echo "$a"; test -e "$a" && echo there; done > "{seen}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    result = CliRunner().invoke(app, ["view", str(run.root), "--slicer"])
    assert result.exit_code == 0, result.output
    option, script, there, ct, *rest = seen.read_text().splitlines()
    assert (option, script, there) == ("--python-script", str(SCRIPT), "there")
    assert ct.endswith("ct.nii")
    assert rest[0] == "there"
    assert rest[2] == "there"
    assert not Path(rest[1]).exists(), "masks that were written for Slicer are deleted after it"


def test_without_slicer(run: Workspace, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(ToolError) as caught:
        open_in_slicer(run)
    assert caught.value.reason is Reason.TOOL_MISSING
    assert "export RUN nrrd" in caught.value.hint
    with pytest.raises(UsageError):
        open_in_slicer(workspace)

"""Built-in products in the graph of a flow: containers read their results, and they read images of containers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from tests.support.cohorts import TINY
from tests.support.containers import ScriptEngine
from tests.support.flows import flow_of

from ctenrich.errors import UsageError
from ctenrich.flows import running, step_outputs
from ctenrich.flows.builtin import products_by_source
from ctenrich.flows.request import RunRequest
from ctenrich.flows.running import End, EndState
from ctenrich.phantom import write_phantom_study

READS = """
triggers: [{}]
models:
  - {use: expert, formats: [dicom, rtstruct, nifti], outputs: {masks: /output}}
  - {name: model, image: model, inputs: {src: /images, masks: /masks}}
"""
DERIVED = """
triggers: [{}]
models:
  - {name: model, image: model, outputs: {images: /output}}
  - {use: expert, inputs: {images: /input}}
"""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ScriptEngine:
    made = ScriptEngine()
    monkeypatch.setattr(running, "find_engine", lambda name: made)
    monkeypatch.setattr(step_outputs, "run_dciodvfy", lambda *_: [])
    return made


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    folder = tmp_path_factory.mktemp("study")
    write_phantom_study(folder, TINY)
    return {"src": {f"{n:06d}.dcm": path for n, path in enumerate(sorted(folder.rglob("*.dcm")), 1)}}


@pytest.mark.long
def test_a_container_reads_objects_structure_sets_and_masks_of_a_product(
    study: dict[str, dict[str, Path]], tmp_path: Path, engine: ScriptEngine
) -> None:
    import nibabel

    engine.scripts["model"] = 'cp "$MASKS"/*/structures.dcm "$OUTPUT"; ls "$MASKS"/*'
    found = running.run_flow(flow_of(READS), study, tmp_path, RunRequest())
    assert found.end.state is EndState.DONE, found.end
    (sent,) = found.files  # the objects of the product are not sent: they are not in dst
    assert dcmread(sent).Modality == "RTSTRUCT"
    (series,) = (tmp_path / "steps/model/in/masks").iterdir()
    assert {dcmread(path).Modality for path in series.glob("*.dcm")} == {"RTSTRUCT", "SEG", "SR"}
    (labels,) = series.glob("labels.nii.gz")
    assert np.asanyarray(nibabel.load(labels).dataobj).any()
    again = running.run_flow(flow_of(READS), study, tmp_path, RunRequest())
    assert again.files == found.files
    assert engine.ran == ["model"]


@pytest.mark.long
def test_a_product_reads_images_that_a_container_made(
    study: dict[str, dict[str, Path]], tmp_path: Path, engine: ScriptEngine
) -> None:
    engine.scripts["model"] = 'cp "$INPUT"/* "$OUTPUT"'
    found = running.run_flow(flow_of(DERIVED), study, tmp_path, RunRequest())
    assert found.end.state is EndState.DONE, found.end
    assert "SEG" in {dcmread(path).Modality for path in found.files}


def test_images_of_another_patient_never_reach_a_product(
    study: dict[str, dict[str, Path]], tmp_path: Path, engine: ScriptEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Path] = []
    monkeypatch.setattr(running, "run_products", lambda images, *_: ran.append(images) or End(EndState.DONE))
    data = dcmread(study["src"]["000001.dcm"])
    data.PatientID = "OTHER"
    data.save_as(tmp_path / "other.dcm")
    engine.scripts["model"] = f'cp {tmp_path}/other.dcm "$OUTPUT"'
    found = running.run_flow(flow_of(DERIVED), study, tmp_path / "a", RunRequest())
    assert (found.end.state, found.end.reason) == (EndState.FAILED, "FOREIGN_OBJECT")
    assert not ran
    for number in (1, 2):  # other images of the same names get a folder of their own
        engine.scripts["model"] = (
            f'cp "$INPUT"/*.{number}.dcm "$OUTPUT" || cp $(ls -d "$INPUT"/* | sed -n {number}p) "$OUTPUT"'
        )
        assert running.run_flow(flow_of(DERIVED), study, tmp_path / "a", RunRequest()).end.state is EndState.DONE
    assert len({path.name for path in ran}) == 2


@pytest.mark.parametrize("end", [EndState.SKIPPED, EndState.FAILED])
def test_a_container_does_not_run_without_the_results_that_it_reads(
    study: dict[str, dict[str, Path]],
    tmp_path: Path,
    engine: ScriptEngine,
    monkeypatch: pytest.MonkeyPatch,
    end: EndState,
) -> None:
    monkeypatch.setattr(running, "run_products", lambda *_: End(end, "NO_CT"))
    engine.scripts["model"] = "exit 3"
    found = running.run_flow(flow_of(READS), study, tmp_path, RunRequest())
    assert found.end.state is end
    assert not engine.ran
    assert "model: the product whose results it reads has none" in found.end.message


def test_a_product_does_not_read_the_results_of_another() -> None:
    text = DERIVED.replace("name: model, image: model", "use: expert")
    with pytest.raises(UsageError, match="line 5, column 5: step2 cannot be run"):
        products_by_source(flow_of(text))

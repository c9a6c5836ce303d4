"""Axes and step of a model: who states them, what is refused, and that the network sees the stated axes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from benchmarks.float32_predictor import Float32Predictor
from numpy.typing import NDArray
from tests.support.nnunet_engines import engines
from tests.support.small_models import any_series, smooth_volume, v2_dataset, v2_plans, volume_record, write_v2

from ctenrich.errors import ModelError, UsageError
from ctenrich.inference.model_cache import spec_of
from ctenrich.inference.products import RequestedProduct, parse_segmenter
from ctenrich.inference.registry import ModelEntry, ModelKind, ResolvedModel, registry
from ctenrich.nnunet.conventions import Conventions, check_stated_axes, stated_conventions
from ctenrich.nnunet.kind import NNUNET
from ctenrich.nnunet.segmenter import open_nnunet
from ctenrich.reasons import Reason
from ctenrich.records import Product
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.workspace import Workspace, load_array

SETTINGS = Settings(segment=SegmentSettings(threads=1))
LAYOUTS = [
    ("Dataset291_TotalSegmentator_part1_organs_1559subj", "RAS", 0.8),
    ("Dataset297_TotalSegmentator_total_3mm_1559subj_v204", "RAS", 0.8),
    ("Dataset837_TotalSegmentator_total_6mm_1559subj", "RAS", 0.8),
    ("Dataset299_body_1559subj", "RAS", None),
    ("Dataset803_TotalSegmentator_vertebrae_inner_1559subj", "RAS", None),
    ("Task251_TotalSegmentator_part1_organs_1139subj", "RAS", None),
    ("clin_ct_organs_ras_07052025", "RAS", None),
    ("Dataset291_Mine", "", None),
    ("Dataset008_HepaticVessel", "", None),
    ("clin_ct_lungs_24062023", "", None),
]


def small(folder: Path, stated: str = "", **change: Any) -> ResolvedModel:
    """Folder of a model without weights: its small files are all that states anything."""
    folder.mkdir(parents=True)
    dataset = {k: change.pop(k) for k in ("overwrite_image_reader_writer",) if k in change}
    (folder / "plans.json").write_text(json.dumps(v2_plans(**change)))
    (folder / "dataset.json").write_text(json.dumps(v2_dataset(**dataset)))
    if stated:
        (folder / "ctenrich.toml").write_text(stated)
    return ResolvedModel(folder.name, folder, None)


def refused(model: ResolvedModel) -> ModelError:
    with pytest.raises(ModelError) as caught:
        check_stated_axes(model)
    return caught.value


# ---------------------------------------------------------------- who states them


@pytest.mark.parametrize(("name", "axes", "step"), LAYOUTS)
def test_published_layouts_are_known_by_their_names(tmp_path: Path, name: str, axes: str, step: float | None) -> None:
    """The name of the folder, of the one above a trainer's folder, of one below, or of the plan's data set."""
    trainer = "nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres"
    inner = small(tmp_path / "a" / name / trainer)
    outer = ResolvedModel("a", tmp_path / "a", None)
    plan = small(tmp_path / "b", dataset_name=name)
    for model in (inner, replace(inner, folder=inner.folder.parent), outer, plan):
        if model is inner and not name.startswith(("Dataset", "Task")):
            continue
        found = stated_conventions(model)
        assert (found.axes, found.step) == (axes, step)
        assert not axes or name in found.axes_from


def test_readers_that_turn_images_state_ras_and_others_state_nothing(tmp_path: Path) -> None:
    assert stated_conventions(small(tmp_path / "a", image_reader_writer="NibabelIOWithReorient")).axes == "RAS"
    by_dataset = small(tmp_path / "b", overwrite_image_reader_writer="NibabelIOWithReorient")
    assert stated_conventions(by_dataset).axes == "RAS"
    for reader in ("SimpleITKIO", "NibabelIO", "", "Tiff3DIO"):
        model = small(tmp_path / f"c{reader}", image_reader_writer=reader)
        assert stated_conventions(model) == Conventions()
        assert refused(model).reason is Reason.UNKNOWN_AXES


def test_the_more_specific_statement_wins(tmp_path: Path) -> None:
    """Record of the import, ctenrich.toml, registry, name, reader; axes and step independently."""
    name = "Dataset291_TotalSegmentator_part1_organs_1559subj"
    model = small(tmp_path / name, image_reader_writer="NibabelIOWithReorient")
    assert stated_conventions(model).axes_from == f"the name {name} (TotalSegmentator)"
    known = replace(model, entry=ModelEntry(name="m", kind=ModelKind.NNUNET_V2, axes="LAS"))
    found = stated_conventions(known)
    assert (found.axes, found.axes_from, found.step) == ("LAS", "the registry", 0.8)
    (model.folder / "ctenrich.toml").write_text('axes = "lps"\nstep = 0.3\n')
    found = stated_conventions(known)
    assert (found.axes, found.axes_from, found.step) == ("LPS", "ctenrich.toml", 0.3)
    (model.folder / "import.json").write_text(json.dumps({"axes": "RAS", "axes_from": "the command line"}))
    found = stated_conventions(known)
    assert (found.axes, found.axes_from, found.step) == ("RAS", "the command line", 0.3)


def test_moose_writes_the_address_of_its_models(tmp_path: Path) -> None:
    model = small(tmp_path / "Dataset123_Organs")
    assert stated_conventions(model).axes == ""
    release = "https://github.com/ENHANCE-PET/MOOSE/releases/download/moosez-v.3.1.3/clin_ct_organs_ras_07052025.zip"
    (model.folder / "model_version.json").write_text(json.dumps({"url": release}))
    assert stated_conventions(model).axes == "RAS"
    (model.folder / "model_version.json").write_text(json.dumps({"url": "https://example.org/clin_ct_organs.zip"}))
    assert stated_conventions(model).axes == ""


def test_every_nnunet_model_of_the_registry_states_its_axes() -> None:
    stated = {e.name: e.axes for e in registry().values() if e.kind in (ModelKind.NNUNET_V1, ModelKind.NNUNET_V2)}
    assert stated["Task055_SegTHOR"] == "LAS"
    assert stated["demo-organs"] == "LPS"
    assert all(stated.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('axes = "RPS"', "'RPS'"),
        ("step = 2", "'2'"),
        ('step = "small"', "small"),
        ('orientation = "RAS"', "'orientation'"),
        ("axes = RAS", "not TOML"),
    ],
)
def test_a_wrong_ctenrich_toml_is_refused(tmp_path: Path, text: str, said: str) -> None:
    error = refused(small(tmp_path / "m", text))
    assert error.reason is Reason.BAD_MODEL
    assert said in error.message


def test_two_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    small(tmp_path / "m" / "a", 'axes = "RAS"')
    (tmp_path / "m" / "ctenrich.toml").write_text('axes = "LAS"')
    assert "contradict" in refused(ResolvedModel("m", tmp_path / "m", None)).message


def test_a_published_model_of_mr_is_refused_by_its_name(tmp_path: Path) -> None:
    error = refused(small(tmp_path / "Dataset852_TotalSegMRI_total_3mm_1088subj"))
    assert error.reason is Reason.WRONG_MODALITY
    assert "MR" in error.message


# ---------------------------------------------------------------- opening a model, and its product


def opened(text: str, product: Product | None = None) -> Any:
    spec = replace(parse_segmenter(text), product=product)
    return NNUNET.open(spec, SETTINGS)


def test_axes_that_nothing_states_are_refused_with_the_three_choices(tmp_path: Path) -> None:
    write_v2(tmp_path / "m", stated="")
    with pytest.raises(ModelError) as caught:
        opened(f"nnunet:{tmp_path / 'm'}")
    assert caught.value.reason is Reason.UNKNOWN_AXES
    assert all(f":axes={axes}" in caught.value.hint for axes in ("RAS", "LAS", "LPS"))
    assert f"models check {tmp_path / 'm'} --axes" in caught.value.hint
    assert f"models import {tmp_path / 'm'} --axes" in caught.value.hint


def test_axes_and_step_are_part_of_the_product(tmp_path: Path) -> None:
    """LPS without a step is what 0.1.0 always used: that product keeps its key."""
    write_v2(tmp_path / "m", stated="")
    spec = f"nnunet:{tmp_path / 'm'}"
    keys = {text: str(opened(spec + text).product) for text in (":axes=LPS", ":axes=RAS", ":axes=LAS:step=0.8")}
    assert keys == {
        ":axes=LPS": "nnunet:m:3d_fullres:0:mirror",
        ":axes=RAS": "nnunet:m:3d_fullres:0:mirror:axes=RAS",
        ":axes=LAS:step=0.8": "nnunet:m:3d_fullres:0:mirror:axes=LAS:step=0.8",
    }
    folder = opened(spec + ":axes=LAS:step=0.8").product.folder
    assert folder == "nnunet__m__3d_fullres__0__mirror__axes-LAS__step-0.8"
    (tmp_path / "m" / "ctenrich.toml").write_text('axes = "RAS"\nstep = 0.8\n')
    assert str(opened(spec).product) == "nnunet:m:3d_fullres:0:mirror:axes=RAS:step=0.8"
    assert opened(spec).engines[0].window.step == 0.8
    assert opened(spec + ":step=0.25").engines[0].window.step == 0.25


def test_the_largest_component_is_part_of_the_product(tmp_path: Path) -> None:
    write_v2(tmp_path / "m")
    spec = f"nnunet:{tmp_path / 'm'}:largest=on"
    product = opened(spec).product
    assert str(product) == "nnunet:m:3d_fullres:0:mirror:largest=on"
    assert opened(spec.removesuffix(":largest=on"), product).product == product
    settings = replace(SETTINGS, segment=replace(SETTINGS.segment, probabilities=True))
    with pytest.raises(UsageError, match="largest=on"):
        NNUNET.open(parse_segmenter(spec), settings)


def test_a_product_that_a_run_has_keeps_its_axes_and_step(tmp_path: Path) -> None:
    """A run of 0.1.0 used LPS and the step of its settings, whatever the folder's name states."""
    folder = write_v2(tmp_path / "Dataset297_TotalSegmentator_total_3mm_1559subj", stated="")
    today = opened(f"nnunet:{folder}")
    assert (today.axes, today.engines[0].window.step) == ("RAS", 0.8)
    old = replace(today.product, axes="", step=None)
    spec = spec_of(RequestedProduct(f"nnunet:{folder}", old))
    kept = NNUNET.open(spec, SETTINGS)
    assert kept.product == old
    assert (kept.axes, kept.engines[0].window.step) == ("LPS", 0.5)
    assert [issue.rule for issue in kept.issues] == ["model.axes"]
    assert "add :axes=RAS" in kept.issues[0].message
    again = NNUNET.open(spec_of(RequestedProduct(f"nnunet:{folder}", today.product)), SETTINGS)
    assert (again.product, again.axes, again.engines[0].window.step) == (today.product, "RAS", 0.8)
    assert again.issues == today.issues == ()


# ---------------------------------------------------------------- what the network sees


def rotation(degrees: float, axis: int) -> NDArray[np.float64]:
    a, turned = np.deg2rad(degrees), np.eye(3)
    first, second = [n for n in range(3) if n != axis]
    turned[[first, first, second, second], [first, second, first, second]] = np.cos(a), -np.sin(a), np.sin(a), np.cos(a)
    return turned


STACKS = {
    "axial": np.eye(3),
    "feet first": np.diag([-1.0, 1.0, -1.0]),
    "reversed": np.diag([1.0, 1.0, -1.0]),
    "prone": np.diag([-1.0, -1.0, 1.0]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]),
    "sagittal": np.array([[0, 0, -1.0], [1.0, 0, 0], [0, -1.0, 0]]),
    "oblique": rotation(20, 0) @ rotation(-15, 2),
    "oblique coronal": rotation(12, 1) @ np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]),
}
"""Directions of growing columns, rows and slices in LPS, as columns."""

SPACING = (3.0, 1.2, 1.3)
"""Between slices, rows and columns."""


def by_nibabel(folder: Path, array: NDArray[Any], affine_lps: NDArray[Any], axes: str) -> NDArray[Any]:
    """The second path: nibabel's orientations, nnunetv2's predictor, and nibabel's way back."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_lps
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)
    image.set_qform(affine, code=1)
    wanted = nibabel.orientations.axcodes2ornt(tuple(axes))
    there = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), wanted)
    turned = nibabel.as_closest_canonical(image) if axes == "RAS" else image.as_reoriented(there)
    assert nibabel.aff2axcodes(turned.affine) == tuple(axes)
    spacing = tuple(float(v) for v in turned.header.get_zooms()[::-1])
    labels = engines(folder, mirror=False)[1].label(np.asarray(turned.dataobj).transpose(2, 1, 0), spacing).labels
    answer = nibabel.Nifti1Image(labels.transpose(2, 1, 0), turned.affine)
    back = nibabel.orientations.ornt_transform(wanted, nibabel.io_orientation(affine))
    returned = answer.as_reoriented(back)
    np.testing.assert_allclose(returned.affine, affine, atol=1e-4)
    return np.asarray(returned.dataobj).transpose(2, 1, 0)


@pytest.mark.parametrize(
    ("stack", "axes"),
    [*((stack, "RAS") for stack in STACKS), ("feet first", "LAS"), ("oblique", "LAS"), ("coronal", "LPS")],
)
def test_the_network_sees_the_stated_axes_whatever_the_stack(
    tmp_path: Path, workspace: Workspace, stack: str, axes: str
) -> None:
    folder = write_v2(tmp_path / "m", axes=(), stated="")
    array = smooth_volume((12, 26, 31), 3)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = STACKS[stack] * np.array(SPACING[::-1]), (-40.0, 12.0, 7.0)
    wanted = by_nibabel(folder, array, affine, axes)
    record = volume_record(array, SPACING, workspace, affine_lps=tuple(map(tuple, affine.tolist())))
    settings = Settings(segment=SegmentSettings(threads=1, engine="reference"))
    for chosen in (SETTINGS, settings):
        segmenter = open_nnunet(str(folder), mirror=False, conventions=Conventions(axes=axes), settings=chosen)
        if chosen is settings:
            segmenter.engines[0].use(Float32Predictor)
        masks = segmenter.segment({"CT": record}, any_series(record), settings=chosen, workspace=workspace)
        found = load_array(workspace.resolve(record.series_instance_uid, masks.label_map_path or ""))
        assert np.array_equal(found, wanted), chosen.segment.engine
    assert len(np.unique(wanted)) == 4

"""Probabilities that networks kept, and their uncertainty, as objects: equal when read by us and by highdicom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from tests.support.encode_cases import Grid, make_expert_masks, make_masks, make_series
from tests.support.small_models import write_v2
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.dicom.parametric_map import read_map
from ctenrich.dicom.seg import read_seg
from ctenrich.errors import CtenrichError
from ctenrich.maps import write
from ctenrich.maps.probabilities import ProbabilityForm, ProbabilityOptions, entropy_of, export_probabilities
from ctenrich.nnunet.conventions import Conventions
from ctenrich.nnunet.probabilities import Probabilities
from ctenrich.nnunet.segmenter import open_nnunet
from ctenrich.reasons import Reason
from ctenrich.records import SegmentMasks, SortedSeries
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.workspace import Workspace, save_array, save_record

OBLIQUE = Grid(row=(0.8, 0.6, 0.0), column=(-0.6, 0.8, 0.0))
HALF = 0.5 / 255 + 1e-6


class Case:
    """A run with one series, and the masks of a product in it."""

    def __init__(self, root: Path, grid: Grid) -> None:
        self.workspace = Workspace(root / "run")
        self.series, self.volume = make_series(root / "ct", grid)
        self.folder = self.workspace.series_dir(self.series.series_instance_uid)
        save_record(self.folder / "sorted.json", self.series)
        save_record(self.folder / "volume.json", self.volume)

    def keep(self, masks: SegmentMasks, kept: NDArray[Any] | None = None, overlap: bool = False) -> SegmentMasks:
        """Save the record of a product, and its probabilities."""
        folder = self.workspace.product_dir(self.series.series_instance_uid, masks.product)
        if kept is not None:
            path = folder / "masks" / "probabilities.npy"
            save_array(path, kept)
            relative = self.workspace.relative(self.series.series_instance_uid, path)
            masks = replace(masks, probabilities_path=relative, classes_overlap=overlap)
        save_record(folder / "masks.json", masks)
        return masks

    def export(self, form: str, out: Path, **options: Any) -> Any:
        return export_probabilities(self.workspace, ProbabilityForm(form), out, ProbabilityOptions(**options))


def shares(masks: SegmentMasks, seed: int = 3) -> NDArray[np.float16]:
    """Probabilities of exclusive classes: with the background they add up to 1; the first slice is certain."""
    scores = np.exp(4 * np.random.default_rng(seed).random((len(masks.segments) + 1, *masks.shape)))
    scores /= scores.sum(axis=0)
    scores[:, 0] = 0
    return scores[1:].astype(np.float16)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path, OBLIQUE)


def test_maps_have_the_values_that_the_run_kept(case: Case, tmp_path: Path) -> None:
    masks = make_masks(case.series, case.workspace)
    kept = shares(masks)
    case.keep(masks, kept)
    (found,) = case.export("probabilities", tmp_path / "out")
    assert (found.reason, found.product) == (None, str(masks.product))
    by_name = {one.path.name: one for one in found.objects}
    assert set(by_name) == {"entropy.dcm", *(f"probability_{s.name}.dcm" for s in masks.segments)}
    for values, segment in zip(kept, masks.segments, strict=True):
        path = by_name[f"probability_{segment.name}.dcm"].path
        ours = read_map(path)
        assert np.array_equal(ours.values, values.astype(np.float32))
        theirs = np.asarray(hd.imread(path).get_volume(apply_real_world_transform=True).array)[::-1]
        assert np.array_equal(theirs, values.astype(np.float32))
        dataset = pydicom.dcmread(path)
        assert segment.name in dataset.SeriesDescription
        assert masks.model is not None
        assert masks.model.sha256 in dataset.ContributingEquipmentSequence[0].ContributionDescription
        assert ours.quantity is not None
        assert (ours.quantity.meaning, ours.grid.shape) == ("Probability", masks.shape)
    rest = 1 - kept.astype(np.float64).sum(axis=0, keepdims=True)
    every = np.concatenate([kept.astype(np.float64), np.maximum(rest, 0)])
    wanted = -(every * np.log(np.maximum(every, 1e-300))).sum(axis=0) / np.log(len(every))
    entropy = read_map(by_name["entropy.dcm"].path).values
    np.testing.assert_allclose(entropy, wanted, atol=1e-6)
    assert not entropy[0].any()


def test_fractions_have_them_in_255_steps(case: Case, tmp_path: Path) -> None:
    masks = make_masks(case.series, case.workspace)
    kept = shares(masks)
    case.keep(masks, kept)
    (found,) = case.export("fractional", tmp_path / "out")
    (one,) = found.objects
    seg = read_seg(one.path, case.series)
    assert [s.label for s in seg.segments] == [s.name for s in masks.segments]
    for number, values in enumerate(kept, 1):
        assert np.abs(seg.fraction(number) - values).max() <= HALF
    dataset = pydicom.dcmread(one.path)
    assert (dataset.SegmentationFractionalType, seg.issues) == ("PROBABILITY", ())
    (part,) = case.export("fractional", tmp_path / "part", structures=("heart",))
    assert [s.label for s in read_seg(part.objects[0].path, case.series).segments] == ["heart"]


def test_the_entropy_of_regions_is_that_of_independent_classes(case: Case, tmp_path: Path) -> None:
    masks = make_masks(case.series, case.workspace)
    kept = np.random.default_rng(1).random((len(masks.segments), *masks.shape)).astype(np.float16)
    case.keep(masks, kept, overlap=True)
    (found,) = case.export("probabilities", tmp_path / "out", structures=("heart",))
    assert [one.path.name for one in found.objects] == ["probability_heart.dcm", "entropy.dcm"]
    p = np.clip(kept.astype(np.float64), 1e-300, 1)
    q = np.clip(1 - kept.astype(np.float64), 1e-300, 1)
    wanted = -(p * np.log2(p) + q * np.log2(q)).mean(axis=0)
    np.testing.assert_allclose(read_map(found.objects[1].path).values, wanted, atol=1e-6)


def bound_of_rounding(number: int, overlap: bool) -> float:
    """Largest change of the normalised entropy of `number` classes by rounding to 16 bits, from its derivation.

    Rounding changes a p by at most 2**-11 times the largest power of two below it. -p ln p changes by at most 2**-11
    times p |ln p + 1|; near 0, where the slope has no limit, a change of d changes it by at most -d ln d: it is
    concave, and 0 at 0. Only the background, 1 minus the sum, can be near 0 with a change that is not small beside it:
    the sum of the changes, at most 2**-11 (1 - 2**-number), because that many powers of two whose sum is below 1 have
    no larger one.
    Values below 2**-14 have steps of 2**-24.
    """

    def near_zero(change: float) -> float:
        return -change * np.log(change)

    small = near_zero(2.0**-25)
    if number == 1 or overlap:  # each pair is an entropy of one class
        return float((near_zero(2.0**-12) + 2.0**-12 + small) / np.log(2))
    classes = 2.0**-11 * (np.log(number + 1) + 1) + number * small
    return float((near_zero(2.0**-11 * (1 - 2.0**-number)) + classes) / np.log(number + 1))


def changes_by_rounding(exact: np.ndarray, *, overlap: bool = False) -> np.ndarray:
    """|entropy of rounded classes - entropy|, of classes [class, case]."""
    given = exact[:, None, None, :]
    return np.abs(entropy_of(given.astype(np.float16), overlap=overlap) - entropy_of(given, overlap=overlap)).ravel()


@pytest.mark.parametrize("overlap", [False, True])
def test_rounding_of_one_class_is_bounded_at_every_value(overlap: bool) -> None:
    """All values of 16 bits from 0 to 1, at the ends of what is rounded to them, where the change is largest."""
    stored = np.arange(0x3C01, dtype=np.uint16).view(np.float16).astype(np.float64)
    middle = (stored[1:] + stored[:-1]) / 2
    exact = np.concatenate([middle * (1 - 1e-9), middle * (1 + 1e-9)])
    found = changes_by_rounding(exact[None], overlap=overlap).max()
    assert bound_of_rounding(1, overlap) / 2 < found <= bound_of_rounding(1, overlap) + 1e-7 < 0.0034


@pytest.mark.parametrize("number", [2, 3, 5, 20, 117])
def test_rounding_of_several_classes_is_bounded(number: int) -> None:
    """Classes that are all rounded down by nearly half a step and leave nothing to the background; and any others."""
    generator = np.random.default_rng(number)
    scores = np.exp(generator.normal(0, 6, (number + 1, 3000)))
    shares = 0.9985 * generator.dirichlet(np.full(number, 0.3), 3000).T
    shares = shares.astype(np.float16).astype(np.float64)
    worst = shares + 0.499 * np.spacing(shares.astype(np.float16)).astype(np.float64)
    worst = worst[:, worst.sum(axis=0) <= 1]
    assert worst.shape[1] > 200
    bound = bound_of_rounding(number, overlap=False)
    assert bound < 0.0036
    for exact in (worst, (scores / scores.sum(axis=0))[1:]):
        assert changes_by_rounding(exact).max() <= bound + 1e-7
    assert changes_by_rounding(worst, overlap=True).max() <= bound_of_rounding(number, overlap=True) + 1e-7
    halves = np.array([2.0**-n * (1 + 2.0**-11 * 0.998) for n in range(1, min(number, 10) + 1)])[:, None]
    assert changes_by_rounding(halves).max() <= bound + 1e-7


@pytest.mark.parametrize("overlap", [False, True])
def test_the_proof_finds_another_entropy(
    overlap: bool, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctenrich.maps import probabilities

    masks = make_masks(case.series, case.workspace)
    case.keep(masks, shares(masks), overlap)
    monkeypatch.setattr(probabilities, "entropy_of", lambda classes, overlap: entropy_of(classes, overlap=not overlap))
    (found,) = case.export("probabilities", tmp_path / "out", structures=("heart",))
    assert found.reason is Reason.PROOF_FAILED
    assert not list(tmp_path.glob("out/**/entropy.dcm"))


def test_the_proof_finds_values_of_another_class(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = make_masks(case.series, case.workspace)
    case.keep(masks, shares(masks))
    right = write.fraction_planes
    monkeypatch.setattr(write, "fraction_planes", lambda parts: iter([*right(parts)][::-1]))
    (found,) = case.export("fractional", tmp_path / "out")
    assert found.reason is Reason.PROOF_FAILED
    assert not list(tmp_path.glob("out/**/*.dcm"))


def test_what_a_network_gave_is_what_an_object_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's own values in 32 bits, against the objects: 16 bits of what is kept lie between."""
    case = Case(tmp_path, Grid(spacing=(1.2, 1.2), step=3.0))
    ct = np.random.default_rng(2).normal(0, 300, case.series.shape).astype(np.int16)
    save_array(case.folder / "volume" / "ct.npy", ct)
    write_v2(tmp_path / "m", axes=())
    exact: list[NDArray[np.float32]] = []
    keep = Probabilities.__call__

    def kept_exactly(self: Any, where: Any, slab: Any, grids: Any, axis: int) -> None:
        exact.append(slab[1:].cpu().numpy())
        keep(self, where, slab, grids, axis)

    monkeypatch.setattr(Probabilities, "__call__", kept_exactly)
    settings = Settings(segment=SegmentSettings(threads=1, probabilities=True))
    segmenter = open_nnunet(str(tmp_path / "m"), settings=settings, conventions=Conventions(axes="LPS"))
    masks = segmenter.segment({"CT": case.volume}, case.series, settings=settings, workspace=case.workspace)
    assert not masks.classes_overlap
    case.keep(masks)
    (maps,) = case.export("probabilities", tmp_path / "maps")
    (fractions,) = case.export("fractional", tmp_path / "fractions")
    seg = read_seg(fractions.objects[0].path, case.series)
    for number, segment in enumerate(masks.segments):
        path = next(one.path for one in maps.objects if one.path.name == f"probability_{segment.name}.dcm")
        given = np.sort(np.concatenate([slab[number].ravel() for slab in exact]))
        values = read_map(path).values
        assert np.abs(np.sort(values[values > 0]) - given[-np.count_nonzero(values) :]).max() <= 2.0**-12
        assert np.abs(seg.fraction(number + 1) - values).max() <= HALF


def refused(case: Case, out: Path, form: str = "probabilities", **options: Any) -> CtenrichError:
    with pytest.raises(CtenrichError) as caught:
        case.export(form, out, **options)
    assert not out.exists()
    return caught.value


def test_what_cannot_be_written_is_refused(case: Case, tmp_path: Path) -> None:
    case.keep(make_expert_masks(case.series, case.workspace))
    error = refused(case, tmp_path / "out")
    assert error.reason is Reason.NOT_PREPARED
    assert "segment.probabilities" in error.hint
    masks = make_masks(case.series, case.workspace)
    case.keep(masks, shares(masks))
    assert refused(case, tmp_path / "out", product="expert").reason is Reason.BAD_PARAMETER
    assert "heart" in refused(case, tmp_path / "out", structures=("hart",)).hint
    assert refused(case, tmp_path / "out", accepted_only=True).reason is Reason.NOT_ACCEPTED
    case.keep(masks, shares(masks)[1:])
    (found,) = case.export("fractional", tmp_path / "out")
    assert (found.reason, "shape" in found.message) == (Reason.NOT_PREPARED, True)
    case.keep(masks, shares(masks))
    Path(case.series.slices[3].path).unlink()
    (found,) = case.export("fractional", tmp_path / "out")
    assert (found.reason, "1 of 14" in found.message) == (Reason.INCOMPLETE, True)


def test_series_are_the_sources(case: Case, tmp_path: Path) -> None:
    """Every frame refers to the slice at its own position."""
    masks = make_masks(case.series, case.workspace)
    case.keep(masks, shares(masks))
    (found,) = case.export("probabilities", tmp_path / "out", structures=("heart",))
    series: SortedSeries = case.series
    dataset = pydicom.dcmread(found.objects[0].path)
    named = [g.DerivationImageSequence[0].SourceImageSequence[0] for g in dataset.PerFrameFunctionalGroupsSequence]
    assert [str(item.ReferencedSOPInstanceUID) for item in named] == list(series.sop_instance_uids)


def test_the_command_needs_a_run(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["export", str(tmp_path), "probabilities"]).exit_code == 2
    assert CliRunner().invoke(app, ["export", str(tmp_path), "fractional", "--table", "a"]).exit_code == 2

"""The SR of feature vectors: codes, references, evidence; read by other software; the proof finds what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from ctenrich.encode.features_sr import encode_features_sr
from ctenrich.encode.seg import encode_seg
from ctenrich.errors import EncodingError
from ctenrich.features.vectors import floats_sha256
from ctenrich.objects.kinds import object_kind
from ctenrich.proof import SegmentationResult, prove, prove_features_sr, prove_seg
from ctenrich.records import EncodedObject, FeatureVector, FeatureVectors, ModelInfo, ModelVectors, Proof
from ctenrich.series_store import ProductRecords, SeriesStore
from ctenrich.settings import Settings
from ctenrich.tools import find_tool, run_tool
from ctenrich.validate import validate_objects
from ctenrich.workspace import Workspace, save_array, sha256_of_file
from tests.support import encode_cases as cases

NETWORKS = (
    ("deep:organs", ModelInfo("organs", "3", "1f" * 32, licence="CC0-1.0", citation="Nobody 2026"), (1, 2)),
    ("deep:other", ModelInfo("other", "", "2e" * 32), (1,)),
    ("deep:chest", ModelInfo("chest", "1", "3d" * 32), (None,)),
)
"""Specification, network, and the segments with a vector."""


class Made:
    """SEG of an expert and SR of the vectors of three networks: heart and left lung, heart, whole volume."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Workspace(folder / "run")
        self.series, self.volume = cases.make_series(folder / "ct")
        self.uid = self.series.series_instance_uid
        self.masks = cases.make_expert_masks(self.series, self.workspace)
        self.seg = encode_seg(self.masks, self.volume, self.series, settings=Settings(), workspace=self.workspace)
        self.store = SeriesStore(self.workspace)
        self.found = FeatureVectors(
            product=cases.EXPERT,
            series_instance_uid=self.uid,
            volume_sha256=self.volume.sha256,
            models=tuple(self.vectors(k, *network) for k, network in enumerate(NETWORKS)),
        )
        self.store.save(self.found, self.uid, cases.EXPERT)
        self.sr = self.encode(self.found)

    def vectors(self, k: int, spec: str, model: ModelInfo, numbers: tuple[int | None, ...]) -> ModelVectors:
        names = {s.number: s.name for s in self.masks.segments}
        values = np.random.default_rng(k).standard_normal((len(numbers), 5 + k)).astype(np.float32)
        path = self.store.features_dir(self.uid, cases.EXPERT) / f"{k}.npy"
        save_array(path, values)
        vectors = tuple(
            FeatureVector(
                number=number,
                name=names[number] if number else "",
                norm=float(np.linalg.norm(row.astype(float))),
                outside=0.125,
                input_sha256=f"{k}{number or 0}" * 32,
                sha256=floats_sha256(row),
            )
            for number, row in zip(numbers, values, strict=True)
        )
        path_text = self.workspace.relative(self.uid, path)
        crop = f"centroid {k}"
        return ModelVectors(
            spec=spec, model=model, length=values.shape[1], crop=crop, array_path=path_text, vectors=vectors
        )

    def encode(self, found: FeatureVectors) -> EncodedObject:
        return encode_features_sr(
            found, self.masks, self.seg, self.series, settings=Settings(), workspace=self.workspace
        )

    @property
    def path(self) -> Path:
        return self.workspace.resolve(self.uid, self.sr.path)

    def prove(self) -> Proof:
        result = SegmentationResult(
            masks=self.masks, shape=cases.make_shape(self.masks), volume=self.volume, series=self.series
        )
        provers = {"seg": prove_seg, "features_sr": prove_features_sr}
        return prove(result, (self.seg, self.sr), provers, settings=Settings(), workspace=self.workspace)

    def failed(self) -> set[str]:
        return {check.name for check in self.prove().checks if not check.passed}

    def change(self, edit: Callable[[Dataset], None]) -> None:
        """Edit the SR, and its hash in the record with it: only the content can give the fault away."""
        ds = pydicom.dcmread(self.path)
        edit(ds)
        ds.save_as(self.path)
        self.sr = replace(self.sr, sha256=sha256_of_file(self.path))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("features"))


@pytest.fixture
def made(whole: Made) -> Iterator[Made]:
    """The objects as they were written, whatever a test before has changed."""
    content, sr = whole.path.read_bytes(), whole.sr
    yield whole
    whole.path.write_bytes(content)
    whole.sr = sr


def groups(ds: Dataset) -> list[Dataset]:
    (found,) = [item for item in ds.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "126010"]
    return list(found.ContentSequence)


def item(group: Dataset, value: str) -> Dataset:
    (found,) = [i for i in group.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == value]
    return found


def test_each_vector_has_a_group_with_its_model_and_hashes(made: Made) -> None:
    ds = pydicom.dcmread(made.path)
    assert [scheme.CodingSchemeDesignator for scheme in ds.CodingSchemeIdentificationSequence] == ["99CTENRICH"]
    assert ds.SeriesDescription == "Manual_segmentations_Deep_Features"
    found = groups(ds)
    assert [g.ContentTemplateSequence[0].TemplateIdentifier for g in found] == ["1411", "1411", "1411", "1501"]
    vectors = [(model, one) for model in made.found.models for one in model.vectors]
    for group, (model, one) in zip(found, vectors, strict=True):
        numbers = {
            code: item(group, code).MeasuredValueSequence[0].FloatingPointValue
            for code in ("FEATURE_LENGTH", "FEATURE_NORM", "FEATURE_OUTSIDE")
        }
        assert numbers == {"FEATURE_LENGTH": model.length, "FEATURE_NORM": one.norm, "FEATURE_OUTSIDE": 12.5}
        codes = ("FEATURE_SHA256", "FEATURE_INPUT", "FEATURE_CROP", "FEATURE_TABLE")
        assert [item(group, code).TextValue for code in codes] == [
            one.sha256, one.input_sha256, model.crop, "deep_features",
        ]  # fmt: skip
        assert item(group, "111001").TextValue == model.model.name
        assert item(group, "111003").TextValue == (model.model.version or "unknown")
        parameters = [i.TextValue for i in group.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "111002"]
        assert parameters[:2] == [f"features={model.spec}", f"model_sha256={model.model.sha256}"]
    heart = item(found[0], "363698007")
    assert heart.ConceptCodeSequence[0].CodeMeaning == "Heart"
    assert item(found[1], "363698007").ContentSequence[0].ConceptCodeSequence[0].CodeMeaning == "Left"


def test_other_software_reads_it(made: Made) -> None:
    report = highdicom.sr.srread(made.path).content
    organs = report.get_volumetric_roi_measurement_groups()
    assert [group.referenced_segment.referenced_segment_numbers for group in organs] == [[1], [2], [1]]
    assert [group.finding_sites[0].value.meaning for group in organs] == ["Heart", "Lung", "Heart"]
    norms = [m.value for g in organs for m in g.get_measurements() if m.name.value == "FEATURE_NORM"]
    assert norms == pytest.approx([v.norm for m in made.found.models[:2] for v in m.vectors])
    (volume,) = report.get_image_measurement_groups()
    named = [image.referenced_sop_instance_uid for image in volume.source_images]
    assert named == list(made.series.sop_instance_uids)


def test_dcmtk_and_the_validators_accept_it(made: Made) -> None:
    path = find_tool("dsrdump")
    if path is None:
        pytest.skip("dsrdump (DCMTK) is not installed")
    printed = run_tool([str(path), str(made.path)], timeout=60)
    assert printed.returncode == 0, printed.stderr
    issues = validate_objects([made.workspace.resolve(made.uid, made.seg.path), made.path], settings=Settings())
    assert [issue for issue in issues if issue.severity == "error" or issue.rule.startswith("tid1500")] == []


def test_a_second_encoding_has_the_same_bytes(made: Made) -> None:
    first = made.path.read_bytes()
    assert made.encode(made.found) == made.sr
    assert made.path.read_bytes() == first
    organs, *others = made.found.models
    changed = replace(organs.vectors[0], sha256="00" * 32)
    models = (replace(organs, vectors=(changed, *organs.vectors[1:])), *others)
    assert made.encode(replace(made.found, models=models)).sop_instance_uid != made.sr.sop_instance_uid


def test_what_was_written_is_proven(made: Made) -> None:
    assert made.failed() == set()


def swap_hashes(ds: Dataset) -> None:
    first, second = (item(group, "FEATURE_SHA256") for group in groups(ds)[:2])
    first.TextValue, second.TextValue = second.TextValue, first.TextValue


def other_norm(ds: Dataset) -> None:
    measured = item(groups(ds)[0], "FEATURE_NORM").MeasuredValueSequence[0]
    measured.FloatingPointValue *= 1.000001


def other_segment(ds: Dataset) -> None:
    item(groups(ds)[0], "121191").ReferencedSOPSequence[0].ReferencedSegmentNumber = 2


def other_site(ds: Dataset) -> None:
    item(groups(ds)[0], "363698007").ConceptCodeSequence[0].CodeValue = "39607008"


def other_model(ds: Dataset) -> None:
    (found,) = [i for i in groups(ds)[2].ContentSequence if "model_sha256" in str(i.get("TextValue", ""))]
    found.TextValue = f"model_sha256={NETWORKS[0][1].sha256}"


def other_version(ds: Dataset) -> None:
    item(groups(ds)[0], "111003").TextValue = "4"


def drop_group(ds: Dataset) -> None:
    (found,) = [i for i in ds.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010"]
    found.ContentSequence.pop(1)


def drop_slice(ds: Dataset) -> None:
    volume = groups(ds)[3]
    volume.ContentSequence.remove(next(i for i in volume.ContentSequence if i.ValueType == "IMAGE"))


@pytest.mark.parametrize(
    ("edit", "failed"),
    [
        (swap_hashes, {"features_sr.values"}),
        (other_norm, {"features_sr.values"}),
        (other_version, {"features_sr.values"}),
        (other_segment, {"features_sr.groups", "features_sr.values", "features_sr.places"}),
        (other_model, {"features_sr.groups", "features_sr.values"}),
        (drop_group, {"features_sr.groups", "features_sr.values"}),
        (other_site, {"features_sr.places"}),
        (drop_slice, {"features_sr.places"}),
    ],
)
def test_a_fault_in_the_object_is_found(made: Made, edit: Callable[[Dataset], None], failed: set[str]) -> None:
    made.change(edit)
    assert made.failed() == failed


def test_values_that_were_changed_on_disk_are_found(made: Made) -> None:
    path = made.workspace.resolve(made.uid, made.found.models[0].array_path)
    whole = np.load(path)
    for changed in (whole * np.float32(1.001), whole[:1]):
        save_array(path, changed)
        assert made.failed() == {"features_sr.arrays"}
    save_array(path, whole)
    assert made.failed() == set()


def test_vectors_of_another_segment_are_refused(made: Made) -> None:
    organs, *others = made.found.models
    heart, *more = organs.vectors

    def with_heart(**other: object) -> FeatureVectors:
        changed = replace(organs, vectors=(replace(heart, **other), *more))  # type: ignore[arg-type]
        return replace(made.found, models=(changed, *others))

    renamed, endless = with_heart(name="aorta"), with_heart(norm=float("inf"))
    with pytest.raises(EncodingError, match="not of"):
        made.encode(renamed)
    with pytest.raises(EncodingError, match="not finite"):
        made.encode(endless)
    other = replace(made.found, product=cases.NNUNET)
    with pytest.raises(EncodingError, match="different products"):
        made.encode(other)


def test_without_a_vector_there_is_no_object(made: Made) -> None:
    why = object_kind("features_sr").why_empty
    assert why is not None
    assert why(ProductRecords(made.store, made.uid, cases.EXPERT)) is None
    empty = replace(made.found, models=tuple(replace(model, vectors=()) for model in made.found.models))
    made.store.save(empty, made.uid, cases.EXPERT)
    assert why(ProductRecords(made.store, made.uid, cases.EXPERT)) == "NO_FEATURES"
    made.store.save(made.found, made.uid, cases.EXPERT)

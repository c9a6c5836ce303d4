"""Demonstration models run on generated studies only, unless the user insists."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctenrich.errors import UsageError
from ctenrich.inference.registry import ResolvedModel, resolve_model
from ctenrich.phantom import PhantomOptions, write_phantom_study
from ctenrich.phantom.identity import make_identity
from ctenrich.reasons import Reason
from ctenrich.records import Cohort, Instance, ModelInfo, SeriesEntry
from ctenrich.runner.demonstration import check_demonstration, is_generated

DEMO = ModelInfo("chest", "1", "ab" * 32, demo=True)
TINY = PhantomOptions(rows=16, columns=16, slices=2, pixel_spacing=(25.0, 25.0), slice_spacing=150.0)


def entry(options: PhantomOptions, url: str = "gs://bucket/1.dcm") -> SeriesEntry:
    identity = make_identity(options)
    instances = (Instance("1.2.3", url),)
    return SeriesEntry("own", identity.patient_id, identity.study, identity.series, instances)


def test_generated_studies_are_recognised_by_their_uid() -> None:
    assert is_generated(entry(TINY))
    assert is_generated(entry(TINY.changed(seed=3, patient_id="P7", patient_name="Doe^Jane")))
    other = SeriesEntry("own", "PHANTOM-0", "1.2.826.0.1.3680043.10.1511.9", "1.2.3", ())
    assert not is_generated(other), "its Patient ID alone is not enough"


def test_another_study_id_is_read_from_the_file(tmp_path: Path) -> None:
    options = TINY.changed(study="follow-up")
    (path, *_) = write_phantom_study(tmp_path, options).slices
    assert is_generated(entry(options, path.as_uri()))
    assert not is_generated(entry(options, (tmp_path / "none.dcm").as_uri()))
    assert not is_generated(entry(options))


def test_one_foreign_study_is_enough_to_refuse() -> None:
    foreign = SeriesEntry("own", "P1", "1.2.3", "1.2.3.4", ())
    check_demonstration(DEMO, Cohort("c", (entry(TINY),)))
    check_demonstration(ModelInfo("real", "1", "cd" * 32), Cohort("c", (foreign,)))
    with pytest.raises(UsageError, match="1 of 2 series are not generated") as caught:
        check_demonstration(DEMO, Cohort("c", (entry(TINY), foreign)))
    assert caught.value.reason is Reason.DEMO_MODEL
    assert "--allow-demo-models" in caught.value.hint


@pytest.mark.parametrize("name", ["demo-organs", "demo-bodypart"])
def test_copies_of_the_package_models_are_demonstration_models_too(tmp_path: Path, name: str) -> None:
    folder = resolve_model(name).folder
    assert resolve_model(str(folder)).demo, "by its path"
    copy = tmp_path / "my-model"
    copy.mkdir()
    (copy / "ctenrich.toml").write_bytes((folder / "ctenrich.toml").read_bytes())
    assert ResolvedModel("my-model", copy, None).demo
    (copy / "ctenrich.toml").write_text('axes = "RAS"')
    assert not ResolvedModel("my-model", copy, None).demo

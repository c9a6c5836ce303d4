"""Without the extra `reference` everything else works; what needs it is refused at once, with what to install."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ctenrich.errors import UsageError
from ctenrich.nnunet.segmenter import open_nnunet
from ctenrich.reasons import Reason
from ctenrich.runner.creation import create_run
from ctenrich.settings import MeasureSettings, SegmentSettings, Settings
from ctenrich.shape.pyradiomics_features import Radiomics
from ctenrich.tools import need_package
from tests.support.cohorts import make_cohort
from tests.support.small_models import v2_plans, write_v2

FAST = SegmentSettings(threads=1)
REFERENCE = ("nnunetv2", "batchgenerators", "radiomics")
INSTALL = r"needs the package {} \(pip install 'ctenrich\[reference\]'"


@pytest.fixture(scope="module")
def small_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("cohort"), 1)


@pytest.fixture
def _no_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in REFERENCE:
        monkeypatch.setitem(sys.modules, name, None)


def test_a_package_that_is_installed_is_not_imported() -> None:
    need_package("turtle", extra="reference", purpose="a test")
    assert "turtle" not in sys.modules
    with pytest.raises(UsageError, match="a test needs the package no_such_package"):
        need_package("no_such_package", extra="reference", purpose="a test")


@pytest.mark.parametrize(
    ("settings", "package"),
    [
        (Settings(measure=MeasureSettings(engine="pyradiomics")), "radiomics"),
        (Settings(measure=MeasureSettings(radiomics=str(Path(__file__)))), "radiomics"),
        (Settings(segment=SegmentSettings(engine="reference")), "nnunetv2"),
    ],
)
@pytest.mark.usefixtures("_no_reference")
def test_a_run_that_asks_for_a_missing_engine_is_refused_before_its_folder_is_made(
    tmp_path: Path, small_cohort: Path, settings: Settings, package: str
) -> None:
    with pytest.raises(UsageError, match=INSTALL.format(package)) as caught:
        create_run(small_cohort, tmp_path / "run", segmenters=("expert",), settings=settings)
    assert caught.value.reason is Reason.MISSING_EXTRA
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("_no_reference")
def test_models_that_need_the_libraries_of_nnunet_are_refused_when_they_are_opened(tmp_path: Path) -> None:
    low, full = v2_plans(), v2_plans()
    low["configurations"] = {"3d_lowres": low["configurations"]["3d_fullres"]}
    second = full["configurations"]["3d_fullres"] | {"previous_stage": "3d_lowres"}
    full["configurations"] = {"3d_cascade_fullres": second}
    write_v2(tmp_path / "m" / "low", low)
    write_v2(tmp_path / "m" / "full", full)
    model = str(tmp_path / "m")
    open_nnunet(model, configuration="3d_lowres", settings=Settings(segment=FAST))
    with pytest.raises(UsageError, match="a cascade " + INSTALL.format("nnunetv2")):
        open_nnunet(model, configuration="3d_cascade_fullres", settings=Settings(segment=FAST))
    reference = Settings(segment=SegmentSettings(engine="reference"))
    with pytest.raises(UsageError, match=INSTALL.format("nnunetv2")):
        open_nnunet(model, configuration="3d_lowres", settings=reference)


@pytest.mark.usefixtures("_no_reference")
def test_a_settings_file_of_pyradiomics_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("featureClass: {firstorder: []}")
    with pytest.raises(UsageError, match=INSTALL.format("radiomics")):
        Radiomics(tmp_path / "f.yaml")

"""First order and texture features: what pyradiomics says, what gets a code, and what the settings file changes."""

from __future__ import annotations

import csv
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import need_package, unpacked
from tests.support import encode_cases as cases
from tests.support.proofs import prove_segmentation

from ctenrich.codes.mappings import load_features
from ctenrich.encode.seg import encode_seg
from ctenrich.encode.shape_sr import encode_shape_sr
from ctenrich.errors import UsageError
from ctenrich.masks import bounding_box
from ctenrich.reasons import Reason
from ctenrich.settings import MeasureSettings, Settings
from ctenrich.shape.measure import measure_shape
from ctenrich.shape.pyradiomics_features import Found, Radiomics
from ctenrich.workspace import Workspace

CLASSES = {"firstorder": [], "glcm": [], "ngtdm": []}
SPACING = (2.5, 0.8, 0.7)


@pytest.fixture(autouse=True)
def _pyradiomics() -> None:
    need_package("pyradiomics", "radiomics")


def parameters(folder: Path, classes: dict[str, list[str]] = CLASSES, **settings: object) -> Path:
    """Write a parameter file; `imageType` is one of its own keys."""
    content: dict[str, object] = {"featureClass": classes, "setting": {"binWidth": 25, **settings}}
    path = folder / f"features-{len(list(folder.glob('features-*')))}.json"
    path.write_text(json.dumps(content))
    return path


def image_and_mask() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    array = (rng.gamma(2.0, 60.0, (16, 40, 44)) - 100).astype(np.int16)
    mask = np.zeros(array.shape, bool)
    mask[4:9, 14:26, 12:30] = rng.random((5, 12, 18)) < 0.8
    return array, mask


def measured(path: Path) -> tuple[Found, np.ndarray, np.ndarray]:
    array, mask = image_and_mask()
    box = bounding_box(mask)
    assert box is not None
    cropped = mask[box.k0 : box.k1, box.j0 : box.j1, box.i0 : box.i1]
    return Radiomics(path).measure(array, cropped, box, SPACING), array, mask


def whole(path: Path, array: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """What pyradiomics says of the whole volume."""
    import SimpleITK
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    image, label = SimpleITK.GetImageFromArray(array), SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    for item in (image, label):
        item.SetSpacing(SPACING[::-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = RadiomicsFeatureExtractor(str(path)).execute(image, label)
    return {name: float(value) for name, value in found.items() if not name.startswith("diagnostics_")}


@pytest.mark.parametrize("setting", [{}, {"resampledPixelSpacing": [1.5, 1.5, 1.5]}, {"normalize": True}])
def test_a_crop_changes_no_number(tmp_path, setting):
    path = parameters(tmp_path, **setting)
    found, array, mask = measured(path)
    expected = whole(path, array, mask)
    assert found.values.keys() == expected.keys()
    for name, value in found.values.items():
        assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-12), name
    assert bool(found.coded) == (not setting)  # other numbers than those of the HU have no code


def test_codes_mean_what_ibsi_says(tmp_path):
    found, array, mask = measured(parameters(tmp_path))
    hu = array[mask].astype(float)
    centred = hu - hu.mean()
    assert found.coded["Mean"] == pytest.approx(hu.mean())
    assert found.coded["Energy"] == pytest.approx((hu**2).sum())
    assert found.coded["RootMeanSquared"] == pytest.approx(np.sqrt((hu**2).mean()))
    excess = (centred**4).mean() / (centred**2).mean() ** 2 - 3
    assert found.coded["Kurtosis"] == pytest.approx(excess)
    assert found.values["original_firstorder_Kurtosis"] == pytest.approx(excess + 3)
    assert found.coded["glcm_Contrast"] == found.values["original_glcm_Contrast"]
    assert found.coded["ngtdm_Contrast"] != found.coded["glcm_Contrast"]
    assert "glcm_MCC" not in found.coded, "IBSI has no such feature"


def test_a_shift_of_the_grey_levels_takes_the_codes_away(tmp_path):
    found, *_ = measured(parameters(tmp_path, voxelArrayShift=1000))
    plain, *_ = measured(parameters(tmp_path))
    assert found.values["original_firstorder_Energy"] != plain.values["original_firstorder_Energy"]
    assert not found.coded


def test_one_grey_level_has_no_excess(tmp_path):
    array, mask = image_and_mask()
    box = bounding_box(mask)
    assert box is not None
    cropped = mask[box.k0 : box.k1, box.j0 : box.j1, box.i0 : box.i1]
    path = parameters(tmp_path, {"firstorder": []})
    assert Radiomics(path).measure(np.full_like(array, 40), cropped, box, SPACING).coded["Kurtosis"] == 0


def test_files_that_are_missing_wrong_or_ask_for_shape_only_are_refused(tmp_path):
    with pytest.raises(UsageError) as missing:
        Radiomics(tmp_path / "none.yaml")
    assert missing.value.reason is Reason.NOT_FOUND
    (tmp_path / "wrong.json").write_text('{"featureClass": {"firstorders": []}}')
    for path in (tmp_path / "wrong.json", parameters(tmp_path, {"shape": []})):
        with pytest.raises(UsageError) as refused:
            Radiomics(path)
        assert refused.value.reason is Reason.BAD_SETTINGS


def test_coded_ones_are_in_the_report_and_proven_the_others_are_noted(tmp_path: Path, workspace: Workspace):
    series, volume = cases.make_series(tmp_path / "ct")
    masks = cases.make_masks(series, workspace)
    path = workspace.resolve(series.series_instance_uid, volume.array_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.random.default_rng(3).integers(-200, 300, series.shape).astype(np.int16))
    chosen = parameters(tmp_path)
    settings = replace(Settings(), measure=MeasureSettings(radiomics=str(chosen)))
    shape = measure_shape(masks, volume, settings=settings, workspace=workspace)
    assert shape.radiomics_version
    assert len(shape.radiomics_sha256) == 64
    heart = shape.segments[1]
    assert {"Mean", "VoxelVolume"} <= heart.values.keys()
    assert "original_ngtdm_Busyness" in heart.radiomics
    seg = encode_seg(masks, volume, series, settings=settings, workspace=workspace)
    report = encode_shape_sr(shape, masks, seg, series, settings=settings, workspace=workspace)
    proof = prove_segmentation(masks, shape, volume, series, (seg, report), settings=settings, workspace=workspace)
    assert proof.passed, [c for c in proof.checks if not c.passed]
    assert heart.values["ngtdm_Busyness"] == heart.radiomics["original_ngtdm_Busyness"]
    noted = [i.message for i in report.issues if i.rule == "UNCODED_FEATURES"]
    assert noted[1] == "heart: 2 features of pyradiomics without a code are in the tables only", "TotalEnergy, MCC"
    content = workspace.resolve(series.series_instance_uid, report.path).read_bytes()
    assert b"IPH6" in content
    assert b"NQ30" in content
    assert b"discretisation: fixed bin size 25 HU" in content
    assert shape.radiomics_sha256.encode() in content
    assert chosen.name.encode() not in content


IBSI_NAMES = {
    "glcm": "cm_{}_3D_avg",
    "glrlm": "rlm_{}_3D_avg",
    "glszm": "szm_{}_3D",
    "gldm": "ngl_{}_3D",
    "ngtdm": "ngt_{}_3D",
}
"""Class -> form of the names in the reference values."""
IBSI_TEXTURES = {
    "glcm": {
        "Autocorrelation": "auto_corr", "ClusterProminence": "clust_prom", "ClusterShade": "clust_shade",
        "ClusterTendency": "clust_tend", "Contrast": "contrast",
        "Correlation": "corr", "DifferenceAverage": "diff_avg",
        "DifferenceEntropy": "diff_entr", "DifferenceVariance": "diff_var", "Id": "inv_diff", "Idm": "inv_diff_mom",
        "Idmn": "inv_diff_mom_norm", "Idn": "inv_diff_norm", "Imc1": "info_corr1", "Imc2": "info_corr2",
        "InverseVariance": "inv_var", "JointAverage": "joint_avg",
        "JointEnergy": "energy", "JointEntropy": "joint_entr",
        "MaximumProbability": "joint_max", "SumAverage": "sum_avg",
        "SumEntropy": "sum_entr", "SumSquares": "joint_var",
    },
    "glrlm": {
        "GrayLevelNonUniformity": "glnu",
        "GrayLevelNonUniformityNormalized": "glnu_norm", "GrayLevelVariance": "gl_var",
        "HighGrayLevelRunEmphasis": "hgre", "LongRunEmphasis": "lre", "LongRunHighGrayLevelEmphasis": "lrhge",
        "LongRunLowGrayLevelEmphasis": "lrlge", "LowGrayLevelRunEmphasis": "lgre", "RunEntropy": "rl_entr",
        "RunLengthNonUniformity": "rlnu", "RunLengthNonUniformityNormalized": "rlnu_norm", "RunPercentage": "r_perc",
        "RunVariance": "rl_var", "ShortRunEmphasis": "sre", "ShortRunHighGrayLevelEmphasis": "srhge",
        "ShortRunLowGrayLevelEmphasis": "srlge",
    },
    "glszm": {
        "GrayLevelNonUniformity": "glnu",
        "GrayLevelNonUniformityNormalized": "glnu_norm", "GrayLevelVariance": "gl_var",
        "HighGrayLevelZoneEmphasis": "hgze", "LargeAreaEmphasis": "lze", "LargeAreaHighGrayLevelEmphasis": "lzhge",
        "LargeAreaLowGrayLevelEmphasis": "lzlge", "LowGrayLevelZoneEmphasis": "lgze", "SizeZoneNonUniformity": "zsnu",
        "SizeZoneNonUniformityNormalized": "zsnu_norm", "SmallAreaEmphasis": "sze", "ZoneEntropy": "zs_entr",
        "SmallAreaHighGrayLevelEmphasis": "szhge",
        "SmallAreaLowGrayLevelEmphasis": "szlge", "ZonePercentage": "z_perc",
        "ZoneVariance": "zs_var",
    },
    "gldm": {
        "DependenceEntropy": "dc_entr", "DependenceNonUniformity": "dcnu", "DependenceVariance": "dc_var",
        "DependenceNonUniformityNormalized": "dcnu_norm",
        "GrayLevelNonUniformity": "glnu", "GrayLevelVariance": "gl_var",
        "HighGrayLevelEmphasis": "hgce", "LargeDependenceEmphasis": "hde", "LowGrayLevelEmphasis": "lgce",
        "LargeDependenceHighGrayLevelEmphasis": "hdhge", "LargeDependenceLowGrayLevelEmphasis": "hdlge",
        "SmallDependenceEmphasis": "lde", "SmallDependenceHighGrayLevelEmphasis": "ldhge",
        "SmallDependenceLowGrayLevelEmphasis": "ldlge",
    },
    "ngtdm": {
        "Busyness": "busyness", "Coarseness": "coarseness", "Complexity": "complexity", "Contrast": "contrast",
        "Strength": "strength",
    },
}  # fmt: skip
"""Class -> pyradiomics' name -> name in the reference values."""


@pytest.mark.data
def test_every_texture_with_a_code_has_ibsi_s_reference_value_on_the_digital_phantom(tmp_path: Path) -> None:
    import nibabel

    folder = unpacked("ibsi") / "ibsi"
    with (folder / "reference_values" / "ibsi_1_dig_phantom.csv").open(encoding="utf-8") as handle:
        reference = {row["tag"]: row["reference value"] for row in csv.DictReader(handle, delimiter=";")}
    array = np.asarray(nibabel.load(folder / "digital_phantom" / "nifti" / "image" / "phantom.nii.gz").dataobj).T
    mask = np.asarray(nibabel.load(folder / "digital_phantom" / "nifti" / "mask" / "mask.nii.gz").dataobj).T > 0
    box = bounding_box(mask)
    assert box is not None
    cropped = mask[box.k0 : box.k1, box.j0 : box.j1, box.i0 : box.i1]
    path = parameters(tmp_path, {name: [] for name in IBSI_TEXTURES}, binWidth=1)
    found = Radiomics(path).measure(array, cropped, box, (2.0, 2.0, 2.0)).coded
    compared = {
        f"{kind}_{name}": reference[IBSI_NAMES[kind].format(tag)]
        for kind, names in IBSI_TEXTURES.items()
        for name, tag in names.items()
    }
    assert found.keys() == compared.keys() == {n for n, c in load_features().items() if c.feature_class in IBSI_NAMES}
    for name, text in compared.items():
        assert float(f"{found[name]:.3g}") == float(text), name


@pytest.mark.parametrize(
    "setting",
    [{"distances": [2]}, {"weightingNorm": "euclidean"}, {"force2D": True}, {"gldm_a": 1}, {"symmetricalGLCM": False}],
    ids=str,
)
def test_other_settings_of_textures_take_their_codes_away_and_leave_those_of_first_order(
    tmp_path: Path, setting: dict[str, object]
) -> None:
    found, *_ = measured(parameters(tmp_path, **setting))
    assert "Mean" in found.coded
    assert not [name for name in found.coded if name.startswith(("glcm", "ngtdm"))]


def test_the_discretisation_is_stated(tmp_path: Path) -> None:
    assert Radiomics(parameters(tmp_path)).parameters[0].startswith("discretisation: fixed bin size 25 HU")
    assert Radiomics(parameters(tmp_path, binCount=32)).parameters[0].startswith("discretisation: fixed bin number 32")
    assert len(Radiomics(parameters(tmp_path, {"firstorder": []})).parameters) == 1
    assert Radiomics(parameters(tmp_path, normalize=True)).parameters == ()

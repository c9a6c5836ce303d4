"""A wrong request says what is wrong and where, suggests what was meant, and exits with code 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.cohorts import make_cohort
from typer.testing import CliRunner, Result

from ctenrich import steps
from ctenrich.cli.main import app
from ctenrich.codes.mappings import use_mappings
from ctenrich.errors import ModelError, UnknownModelError, did_you_mean
from ctenrich.inference.download import download


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a catalog, a cohort and a run."""
    folder = tmp_path_factory.mktemp("requests")
    made = steps.start(make_cohort(folder, 1), folder / "run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment):
        stage(made)
    steps.tables(made)
    return folder


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("run cohort.parquet --out r --segmenter expert --settings other", "BAD_SETTINGS"),
        ("run cohort.parquet --out r --segmenter expert --mappings folder", "BAD_MAPPING"),
        ("check-mappings folder", "ENCODING"),
        ("evaluate-landmarks run --extents other", "BAD_PARAMETER"),
        ("select --series-list other --catalog folder:catalog.duckdb --out c.parquet", "BAD_PARAMETER"),
        (
            "select --lock other --param minimum_slices=3 --catalog folder:catalog.duckdb --out c.parquet",
            "BAD_PARAMETER",
        ),
        ("select --lock other --body-part CHEST --catalog folder:catalog.duckdb --out c.parquet", "BAD_PARAMETER"),
        ("select --lock other --catalog folder:catalog.duckdb --out c.parquet", "BAD_COHORT"),
    ],
)
@pytest.mark.parametrize("content", [b"name,labels\n\xff\xfe,\x80\n", b"[" * 100_000, b'"' + b"x" * 200_000])
def test_text_files_that_are_no_such_files(
    command: str, reason: str, content: bytes, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    (place / "folder").mkdir(exist_ok=True)
    for path in ("other", "folder/segments.csv"):
        (place / path).write_bytes(content)
    try:
        done = call(*command.split())
    finally:
        use_mappings("")
    assert isinstance(done.exception, SystemExit | None), done.exception
    if content.startswith(b"name"):
        assert done.exit_code in (1, 2)
        assert reason in done.output


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("run dicom --out r --segmenter expert --settings none.toml", ["none.toml"]),
        ("plan dicom --segmenter expert", ["dicom is a folder"]),
        ("cohort show dicom", ["dicom is a folder"]),
        ("cohort diff cohort.parquet dicom", ["dicom is a folder"]),
        ("run none/c.parquet --out r --segmenter expert", ["there is no file or folder none/c.parquet"]),
        ("run cohort.parquet --out r --segmenter nnunet:/no/such/place", ["there is no model /no/such/place"]),
        ("plan cohort.parquet --segmenter nnunet:/no/such/place", ["there is no model /no/such/place"]),
        ("plan cohort.parquet --bodypart ./none", ["there is no model ./none"]),
        ("plan cohort.parquet --segmenter nnunet:Task055_SegThor", ["did you mean Task055_SegTHOR?"]),
        ("plan cohort.parquet --bodypart demo-bodyprt", ["did you mean demo-bodypart"]),
        ("models show demo-organ", ["did you mean demo-organs"]),
        ("models pull bprr", ["did you mean bpr?"]),
        ("models import none.zip", ["none.zip"]),
        ("run cohort.parquet --out r --segmenter expret", ["did you mean expert?"]),
        ("run cohort.parquet --out r --segmenter expert --device gpu", ["'gpu' is not a device", "auto, cpu"]),
        ("prepare cohort.parquet --out r --segmenter expert --device cud:0", ["'cud:0' is not a device"]),
        ("selct x", ["Did you mean 'select'?"]),
        ("select select_ct_serie --catalog folder:catalog.duckdb", ["did you mean select_ct_series"]),
        ("select select_ct_series --catalog foldr:catalog.duckdb", ["did you mean folder?"]),
        ("select select_ct_series --catalog folder:catalog.duckdb --param patient=x", ["did you mean patients?"]),
        ("query run segmentation", ["there is no query segmentation", "did you mean segmentations?"]),
        ("query runn segmentations", ["runn does not exist"]),
        ("query dicom segmentations", ["dicom is not a run's folder"]),
        ("retry run --reason NO_MODL", ["there is no reason NO_MODL", "did you mean NO_MODEL"]),
        ("evaluate-segmentations run --reference exprt", ["did you mean expert?"]),
        ("evaluate-landmarks run --reference exprt", ["did you mean expert?"]),
        ("evaluate-landmarks run --extents dicom", ["dicom is a folder"]),
        ("index dicom --catalog catalog.duckdb --collection mine", ["no series got the collection mine", "local"]),
        ("check-mappings none", ["none is not a folder"]),
        ("check-mappings dicom", ["dicom holds no CSV file"]),
        ("export none nifti", ["there is no none"]),
        ("export run nifty", ["nifty", "nifti"]),
        ("view run --port 70000", ["65535"]),
        ("publish run gs//bucket", ["gs//bucket", "gs://BUCKET/PREFIX"]),
        ("publish run dicon://host:104/AE", ["did you mean dicom?"]),
        ("publish run dicom://host:x/AE", ["dicom://host:x/AE is not an address"]),
    ],
)  # fmt: skip
def test_wrong_requests(line: str, shown: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.iterdir())
    result = call(*line.split(" "))
    assert result.exit_code == 2, result.output
    for text in shown:
        assert text in result.output
    assert sorted(place.iterdir()) == before, "nothing is made"


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["status", ""], "the argument after 'status' is empty"),
        (["models", "show", ""], "the argument after 'show' is empty"),
        (["run", "cohort.parquet", "--out", "", "--segmenter", "expert"], "--out is empty"),
        (["index", "dicom", "--catalog="], "--catalog is empty"),
        (["export", "", "nifti"], "the argument after 'export' is empty"),
        (["query", "run", ""], "the argument after 'run' is empty"),
    ],
)
def test_empty_values(words: list[str], where: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    result = call(*words)
    assert result.exit_code == 2
    assert where in result.output


def test_the_same_collection_again_is_no_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert call("index", "dicom", "--catalog", "catalog.duckdb").exit_code == 0
    assert call("index", "dicom", "--catalog", "catalog.duckdb", "--collection", "local").exit_code == 0


def test_no_network_names_the_host(tmp_path: Path, place: Path) -> None:
    with pytest.raises(Exception, match=r"no-such-host\.invalid") as caught:
        download("http://no-such-host.invalid/model.zip", tmp_path / "x.zip", tries=1)
    assert not isinstance(caught.value, ModelError)


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("hart", ("heart", "lung"), "did you mean heart? known: two"),
        ("HEART", ("heart", "lung"), "did you mean heart? known: two"),
        ("spleen", ("heart", "lung"), "known: two"),
        ("x", (), "known: two"),
    ],
)
def test_suggestions(name: str, known: tuple[str, ...], hint: str) -> None:
    assert did_you_mean(name, known, "known: two") == hint


def test_an_unknown_model_is_a_wrong_request() -> None:
    assert issubclass(UnknownModelError, ModelError)
    assert UnknownModelError.exit_code == 2

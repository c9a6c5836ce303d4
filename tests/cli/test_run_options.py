"""Options of ``run``: aliases, devices and workers, the program that follows, progress in redirected output."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.support.cohorts import make_cohort
from typer.testing import CliRunner, Result

from ctenrich.cli.finishing import finishing
from ctenrich.cli.main import app
from ctenrich.cli.options import ComputeOptions
from ctenrich.cli.progress_lines import LineProgress, progress_lines
from ctenrich.errors import InputError, UsageError, count
from ctenrich.inference.products import RequestedProduct, parse_segmenter, split_alias
from ctenrich.ledger.ledger import Ledger
from ctenrich.reasons import Reason
from ctenrich.records import Product
from ctenrich.results.query import run_query
from ctenrich.results.tables import build_tables
from ctenrich.runner.creation import create_run
from ctenrich.runner.products import product_key, request_products
from ctenrich.runner.recorder import RunRecorder
from ctenrich.settings import Settings

WRITE = (
    "import json, os, sys; "
    "found = {k: v for k, v in os.environ.items() if k.startswith('CTENRICH_') and k.split('_')[1] in "
    "('RUN', 'OUTCOME', 'EXIT', 'REPORT')}; "
    "json.dump(found, open(sys.argv[1], 'w')); sys.exit(int(sys.argv[2]))"
)


@pytest.mark.parametrize(
    ("text", "alias", "spec"),
    [
        ("expert", "", "expert"),
        ("gold=expert", "gold", "expert"),
        ("heart=nnunet:m:3d_fullres:folds=0,1", "heart", "nnunet:m:3d_fullres:folds=0,1"),
        ("nnunet:m:folds=0", "", "nnunet:m:folds=0"),
        ("t=totalsegmentator:total:roi=liver", "t", "totalsegmentator:total:roi=liver"),
    ],
)
def test_an_alias_is_a_name_before_an_equals_sign_before_the_first_colon(text: str, alias: str, spec: str) -> None:
    assert split_alias(text) == (alias, spec)


@pytest.mark.parametrize(
    "text", ["1=expert", "=expert", "a b=expert", "expert=expert", "../x=expert", f"{'a' * 33}=expert"]
)
def test_an_alias_that_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="alias") as caught:
        parse_segmenter(text)
    assert caught.value.reason is Reason.BAD_PARAMETER


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_an_alias_is_kept_and_is_no_part_of_the_product(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path, 1)
    named = create_run(cohort, tmp_path / "run", segmenters=["gold=expert"])
    (product,) = named.config.products
    assert (product.spec, str(product.product), str(product)) == ("expert", "expert", "gold (expert)")
    again = create_run(cohort, tmp_path / "run", segmenters=["expert"])
    assert again.config.products == named.config.products, "a request without an alias keeps it"
    other = create_run(cohort, tmp_path / "run", segmenters=["truth=expert"])
    assert [p.alias for p in other.config.products] == ["truth"]
    assert product_key(other.config.products, "truth") == "expert"
    assert product_key(other.config.products, "gold") == "gold"
    build_tables(other.workspace)
    (row,) = run_query(other.workspace, "SELECT product, alias, kind, model, missing FROM products").to_pylist()
    assert row == {"product": "expert", "alias": "truth", "kind": "expert", "model": None, "missing": None}


def test_two_products_cannot_have_one_alias() -> None:
    network = RequestedProduct("nnunet:m", Product("nnunet", "m", "3d_fullres", ("0",)), alias="x")
    with pytest.raises(UsageError, match="two products have the alias x"):
        request_products(("x=expert",), "none", settings=Settings(), allow_demo=False, kept=(network,))


def test_devices_and_workers_become_settings(tmp_path: Path) -> None:
    assert ComputeOptions().load().run.devices == ()
    found = ComputeOptions(devices="cuda:0, cuda:1", workers="2,4").load()
    assert found.run.devices == ("cuda:0", "cuda:1")
    assert (found.run.input_workers, found.run.output_workers) == (2, 4)
    assert (ComputeOptions(workers="3").load().run.output_workers) == 3
    file = tmp_path / "s.toml"
    file.write_text("[segment]\ndevice = 'cpu'\n")
    assert ComputeOptions(settings=file).load().segment.device == "cpu", "no option changes what it does not name"
    assert ComputeOptions(settings=file, device="cuda:1").load().segment.device == "cuda:1"


@pytest.mark.parametrize(
    "given", [{"workers": "0"}, {"workers": "1,2,3"}, {"workers": "many"}, {"devices": "cuda:0,gpu"}]
)
def test_devices_and_workers_that_cannot_be(given: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        ComputeOptions(**given).load()  # type: ignore[arg-type]


def test_a_program_follows_a_run(tmp_path: Path) -> None:
    script, found = tmp_path / "after.py", tmp_path / "found.json"
    script.write_text(WRITE)
    program = f"'{sys.executable}' '{script}' '{found}' 7"
    words = ["--segmenter", "gold=expert", "--executor", "serial", "--on-finish", program]
    done = call("run", make_cohort(tmp_path, 1), "--out", tmp_path / "my run", *words)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"reading {tmp_path}/"), "there is a line before packages are loaded"
    assert "1 series, products of this run: gold (expert)" in done.output
    assert " series 0 of 1\n" in done.output
    assert "ended with exit code 7" in done.output
    (seg,) = (tmp_path / "my run").glob("series/*/expert/objects/seg.dcm")
    compared = call("evaluate-segmentations", tmp_path / "my run", seg, "--reference", "gold", "--csv")
    assert compared.exit_code == 0, compared.output
    assert "expert" in compared.output.splitlines()[1]
    assert json.loads(found.read_text()) == {
        "CTENRICH_RUN": str(tmp_path / "my run"),
        "CTENRICH_OUTCOME": "done",
        "CTENRICH_EXIT_CODE": "0",
        "CTENRICH_REPORT": str(tmp_path / "my run" / "report" / "index.html"),
    }


def test_a_program_follows_a_run_that_breaks_but_no_request_that_was_refused(tmp_path: Path) -> None:
    script, found = tmp_path / "after.py", tmp_path / "found.json"
    script.write_text(WRITE)
    command = f"{sys.executable} {script} {found} 0"
    refused = call(
        "run", tmp_path / "none.parquet", "--out", tmp_path / "r", "--segmenter", "expert", "--on-finish", command
    )
    assert refused.exit_code == 2
    assert not found.exists()
    with pytest.raises(InputError):
        _fail(command, tmp_path, InputError(Reason.NO_CT, "no CT"))
    assert json.loads(found.read_text())["CTENRICH_OUTCOME"] == "failed"
    with pytest.raises(KeyboardInterrupt):
        _fail(command, tmp_path, KeyboardInterrupt())
    after = json.loads(found.read_text())
    assert (after["CTENRICH_OUTCOME"], after["CTENRICH_EXIT_CODE"]) == ("interrupted", "3")


def _fail(command: str, out: Path, error: BaseException) -> None:
    with finishing(command, out) as finish:
        finish.started = True
        raise error


@pytest.mark.parametrize("command", ["no-such-program-anywhere x", "echo 'open", "$(reboot)", "echo x; true"])
def test_a_program_that_cannot_follow_is_refused_before_any_work(command: str, tmp_path: Path) -> None:
    words = ["run", "none", "--out", tmp_path / "r", "--segmenter", "expert", "--on-finish", command]
    refused = call(*words)
    assert refused.exit_code == 2
    if not command.startswith("echo x"):  # this one is a program: echo, with three words
        assert "--on-finish" in refused.output


def test_redirected_output_has_a_line_at_once_and_then_one_in_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    progress = LineProgress()
    progress.start("series", 3)
    first = capsys.readouterr().err
    assert first.endswith(" series 0 of 3\n")
    progress.status("series", "at work: ...123.4")
    progress.start("convert", 96)
    progress.advance("convert", 10)
    progress.advance("series")
    assert capsys.readouterr().err == "", "no flood"
    progress.write_line()
    assert capsys.readouterr().err.endswith(" series 1 of 3, at work: ...123.4; convert 10 of 96\n")
    progress.finish("convert")
    progress.finish("series")
    progress.write_line()
    assert capsys.readouterr().err == ""


def test_lines_are_written_by_the_clock(capsys: pytest.CaptureFixture[str]) -> None:
    import time

    with progress_lines(seconds=0.01) as progress:
        progress.start("series", 1)
        deadline = time.monotonic() + 5
        lines = ""
        while lines.count("series 0 of 1") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
            lines += capsys.readouterr().err
    assert lines.count("series 0 of 1") >= 3


def test_the_progress_names_the_series_at_work(tmp_path: Path) -> None:
    lines = LineProgress()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        recorder = RunRecorder(ledger, tmp_path / "log.jsonl", progress=lines)
        lines.start("series", 9)
        recorder.show_series([f"1.2.840.99.{n}" for n in range(10_000, 10_006)])
    assert "at work: ...840.99.10000 ...840.99.10001" in lines.text()
    assert "10004" not in lines.text(), "four at most"


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(1, "object", "1 object"), (0, "object", "0 objects"), (2, "study", "2 studies"), (1, "series", "1 series")],
)
def test_singular_and_plural(number: int, noun: str, text: str) -> None:
    assert count(number, noun) == text

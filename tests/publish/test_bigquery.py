from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import need_package
from tests.results.test_queries import write_clinical
from tests.services.bigquery_service import load_table, local_bigquery
from tests.services.failing_proxy import failing_proxy
from tests.support.organ_questions import QUESTIONS as ORGAN_QUESTIONS
from tests.support.published_queries import (
    DATASETS,
    NAMES,
    comparable,
    make_encoded_run,
    needs_queries,
    published_query,
)
from tests.support.questions import CLINICAL_ROW, NEEDS_CLINICAL, QUESTIONS, SERIES
from tests.support.report_more import add_more
from tests.support.report_runs import make_run, uid_of
from typer.testing import CliRunner

from ctenrich.catalog.schema import Column
from ctenrich.cli.main import app
from ctenrich.errors import TransientError, UsageError
from ctenrich.publish import bigquery
from ctenrich.publish.bigquery import PARTITIONS, BigQueryOptions, Mode
from ctenrich.publish.objects import publish_to
from ctenrich.reasons import Reason
from ctenrich.results.query import run_query
from ctenrich.results.remote import PublishedTables
from ctenrich.results.views import result_views
from ctenrich.workspace import Workspace

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning"
)
PROJECT = "test-project"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = add_more(make_run(tmp_path_factory.mktemp("publish") / "run", SERIES), SERIES)
    write_clinical(made)
    return made


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with local_bigquery(tmp_path_factory.mktemp("bigquery")) as root:
        yield root


def open_client(root: str) -> Any:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    return bigquery.Client(project=PROJECT, credentials=AnonymousCredentials(), client_options={"api_endpoint": root})


def few(run: Workspace, root: Path, *names: str) -> Workspace:
    """The same run with some of its tables only."""
    other = Workspace(root)
    other.tables.mkdir(parents=True)
    for name in names:
        (other.tables / f"{name}.parquet").write_bytes((run.tables / f"{name}.parquet").read_bytes())
    (root / "run.json").write_text('{"name": "one"}')
    return other


def publish_bigquery(
    workspace: Workspace, place: str, *, mode: Mode = Mode.REPLACE, client: Any = None
) -> dict[str, int]:
    """The made-up patients of these runs may go anywhere."""
    options = BigQueryOptions(mode=mode, identified=True)
    return bigquery.publish_bigquery(workspace, place, options=options, client=client)


def count(client: Any, name: str) -> int:
    return int(next(iter(client.query(f"SELECT COUNT(*) AS n FROM `{name}`").result()))["n"])


# ---------------------------------------------------------------- the same questions, here and there


@pytest.fixture(scope="module")
def published(run: Workspace, service: str) -> str:
    place = f"{PROJECT}.made"
    client = open_client(service)
    counts = publish_bigquery(run, place, client=client)
    assert counts["segmentations"] == 2 * (SERIES + 1)
    columns = [Column(name, "STRING") for name in CLINICAL_ROW]
    load_table(service, "idc_v25_clinical.nsclc_radiomics_clinical", columns, [CLINICAL_ROW])
    return place


@pytest.mark.parametrize("name", sorted([*QUESTIONS, *NEEDS_CLINICAL]))
def test_every_question_gives_the_same_rows(run: Workspace, service: str, published: str, name: str) -> None:
    given, rows = {**QUESTIONS, **NEEDS_CLINICAL}[name]
    there = PublishedTables(published, endpoint=service)
    try:
        found = there.run_query(name, given).to_pylist()
    finally:
        there.close()
    here = run_query(run, name, given).to_pylist()
    assert len(found) == rows
    assert json.dumps(found, default=str) == json.dumps(here, default=str)


def test_questions_on_organs_give_the_same_rows(run: Workspace, service: str, published: str) -> None:
    from google.cloud import bigquery

    client, config = open_client(service), bigquery.QueryJobConfig(default_dataset=published)
    for sql in ORGAN_QUESTIONS.values():
        rows = client.query(sql, job_config=config).result()
        found, here = [dict(row) for row in rows], run_query(run, sql).to_pylist()
        assert json.dumps(found, default=str) == json.dumps(here, default=str)


@needs_queries
@pytest.mark.long
def test_the_published_queries_run_there_too(service: str, tmp_path: Path) -> None:
    """With nothing but the names of their tables replaced (then those of both collections are the same statements)."""
    encoded = few(make_encoded_run(tmp_path), tmp_path / "few", "dicom_metadata", "measurement_groups", "slices")
    place = f"{PROJECT}.published"
    publish_bigquery(encoded, place, client=open_client(service))
    there = PublishedTables(place, endpoint=service)
    try:
        for sql in (published_query(name, DATASETS[0]) for name in NAMES):
            found = comparable(there.run_query(sql).to_pylist())
            assert found
            assert found == comparable(run_query(encoded, sql).to_pylist())
    finally:
        there.close()


def test_the_command_shows_the_price_first_and_binds(
    service: str, published: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from google.cloud import bigquery

    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", service)
    monkeypatch.setattr(bigquery.QueryJob, "total_bytes_processed", 2_500_000_000)
    asked: list[tuple[bool, str, list[Any]]] = []
    query = bigquery.Client.query

    def spy(self: Any, text: str, *args: Any, **options: Any) -> Any:
        config = options["job_config"]
        asked.append((bool(config.dry_run), text, [p.value for p in config.query_parameters]))
        return query(self, text, *args, **options)

    monkeypatch.setattr(bigquery.Client, "query", spy)
    file = tmp_path / "mine.sql"
    file.write_text(
        "SELECT slice_index FROM slices WHERE SeriesInstanceUID = @series AND slice_index < @below ORDER BY 1"
    )
    evil = "x' OR '1'='1"
    arguments = ["query", f"bigquery:{published}", str(file), "--csv", "--param", "below=3", "--param"]
    done = CliRunner().invoke(app, [*arguments, f"series={uid_of(1)}"])
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == ["slice_index", "0", "1", "2"]
    assert "reads up to 2.500 GB: at most $0.01" in done.stderr
    assert asked[0][0] is True
    assert asked[-1][0] is False
    assert all(text == file.read_text() for _, text, _ in asked), "the text is sent as it is"
    assert set(asked[-1][2]) == {uid_of(1), 3}
    assert CliRunner().invoke(app, [*arguments, f"series={evil}"]).stdout.split() == ["slice_index"]
    asked.clear()
    dry = CliRunner().invoke(app, [*arguments, "series=x", "--dry-run"])
    assert (dry.exit_code, dry.stdout) == (0, "")
    assert [d for d, _, _ in asked] == [True]
    limited = CliRunner().invoke(app, [*arguments, "series=x", "--byte-limit", "1"])
    assert limited.exit_code != 0
    assert isinstance(limited.exception, UsageError) or "BYTE_LIMIT" in limited.stderr


def test_anatomy_on_both(run: Workspace, service: str, published: str) -> None:
    from ctenrich.results.anatomy import anatomy_query

    text, given = anatomy_query(["Th8..lung_start"], ["C2"])
    there = PublishedTables(f"bigquery:{published}", endpoint=service)
    found = there.run_query(text, given).to_pylist()
    there.close()
    assert found == run_query(run, text, given).to_pylist()
    assert len(found) == SERIES


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM series WHERE true",
        "SELECT 1; SELECT 2",
        "SELECT * FROM `other-project.set.table`",
        "SELECT * FROM `bigquery-public-data.idc_current.dicom_all`",
        "SELECT * FROM `bigquery-public-data.samples.natality`",
    ],
)
def test_only_the_data_sets_tables_are_read(service: str, published: str, sql: str) -> None:
    there = PublishedTables(published, endpoint=service)
    with pytest.raises(UsageError) as caught:
        there.run_query(sql)
    there.close()
    assert caught.value.reason is Reason.BAD_QUERY


def test_a_place_is_a_project_and_a_data_set() -> None:
    for place in ("bigquery:results", "bigquery:a.b.c", "bigquery:P.x", "bigquery:"):
        with pytest.raises(UsageError) as caught:
            PublishedTables(place)
        assert caught.value.reason is Reason.BAD_PARAMETER


# ---------------------------------------------------------------- tables


@pytest.mark.long
def test_partitions_clusters_and_descriptions_are_sent(run: Workspace, service: str) -> None:
    """What the request says: the service at hand keeps partitions and clusters, and forgets descriptions."""
    with failing_proxy(service, lambda *_: None) as proxy:
        client = open_client(proxy.root)
        publish_bigquery(run, f"{PROJECT}.sent", client=client)
        posted = [(path, body) for method, path, body in proxy.requests if method == "POST"]
        sent = [json.loads(body) for path, body in posted if path.split("?")[0].endswith("/tables")]
        kept = client.get_table(f"{PROJECT}.sent.slices")
    made = {table["tableReference"]["tableId"]: table for table in sent if "view" not in table}
    assert set(made) == {p.stem for p in run.tables.glob("*.parquet")}
    assert {table["tableReference"]["tableId"] for table in sent} - set(made) == set(result_views())
    for name, table in made.items():
        bounds = {"start": "0", "end": str(PARTITIONS), "interval": "1"}
        assert table["rangePartitioning"] == {"field": "run_partition", "range": bounds}
        fields = table["schema"]["fields"]
        assert [f["name"] for f in fields if not f.get("description")] == [], name
        assert not [f["name"] for f in fields if "defaultValueExpression" in f], name
        clusters = table["clustering"]["fields"]
        assert clusters[0] == "run_id"
        assert set(clusters) <= {f["name"] for f in fields}
        assert len(clusters) > 1 or "SeriesInstanceUID" not in {f["name"] for f in fields}, name
    wanted = made["quantitative_measurements"]["clustering"]["fields"]
    assert wanted == ["run_id", "sourceSegmentedSeriesUID", "SOPInstanceUID"]
    annotations = made["image_level_annotations"]["clustering"]["fields"]
    assert annotations == ["run_id", "ReferencedSeriesInstanceUID", "SOPInstanceUID"]
    assert (kept.range_partitioning.field, kept.clustering_fields) == ("run_partition", ["run_id", "SeriesInstanceUID"])


@pytest.mark.long
def test_a_run_is_there_once_whatever_the_mode(run: Workspace, service: str, tmp_path: Path) -> None:
    client, place = open_client(service), f"{PROJECT}.once"
    one = few(run, tmp_path / "one", "series", "slices")
    two = few(run, tmp_path / "two", "series", "slices")
    (two.root / "run.json").write_text('{"name": "two"}')
    first = publish_bigquery(one, place, client=client, mode=Mode.CREATE)
    assert publish_bigquery(one, place, client=client, mode=Mode.APPEND) == first
    assert publish_bigquery(one, place, client=client, mode=Mode.REPLACE) == first
    assert count(client, f"{place}.slices") == first["slices"]
    publish_bigquery(two, place, client=client, mode=Mode.APPEND)
    assert count(client, f"{place}.slices") == 2 * first["slices"]
    publish_bigquery(one, place, client=client)
    assert count(client, f"{place}.slices") == 2 * first["slices"], "the other run stays"
    with pytest.raises(UsageError) as caught:
        publish_bigquery(one, place, client=client, mode=Mode.CREATE)
    assert caught.value.reason is Reason.BAD_RUN


@pytest.mark.long
def test_the_command_publishes(service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tests.support.cohorts import make_cohort

    from ctenrich import steps

    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", service)
    folder = tmp_path / "run"
    steps.tables(steps.start(make_cohort(tmp_path, 1), folder, segmenters=["expert"]))
    place = f"bigquery:{PROJECT}.command"
    done = CliRunner().invoke(app, ["publish", str(folder), place, "--identified"])
    assert done.exit_code == 0, done.output
    assert "rows in" in done.stdout
    again = CliRunner().invoke(app, ["publish", str(folder), place, "--identified", "--mode", "create"])
    assert again.exit_code != 0
    elsewhere = CliRunner().invoke(app, ["publish", str(folder), place, "--identified", "--location", "EU"])
    assert elsewhere.exit_code != 0
    asked = CliRunner().invoke(app, ["query", place, "SELECT COUNT(*) AS n FROM series", "--csv"])
    assert asked.stdout.split() == ["n", "1"]


def test_append_loads_nothing_that_is_there(run: Workspace, service: str, tmp_path: Path) -> None:
    one = few(run, tmp_path / "one", "series")
    with failing_proxy(service, lambda *_: None) as proxy:
        client = open_client(proxy.root)
        publish_bigquery(one, f"{PROJECT}.append", client=client, mode=Mode.APPEND)
        assert [p for m, p, _ in proxy.requests if m == "POST" and "/upload/" in p]
        proxy.requests.clear()
        publish_bigquery(one, f"{PROJECT}.append", client=client, mode=Mode.APPEND)
        assert not [p for m, p, _ in proxy.requests if "/upload/" in p]


@pytest.mark.parametrize("fault", ["column", "type", "mode"])
def test_a_table_of_an_older_schema(run: Workspace, service: str, tmp_path: Path, fault: str) -> None:
    from google.cloud import bigquery

    from ctenrich.publish.bigquery import _bigquery_schema

    client, place = open_client(service), f"{PROJECT}.older_{fault}"
    one = few(run, tmp_path / "one", "series")
    schema = _bigquery_schema(one.tables / "series.parquet")
    at = next(i for i, f in enumerate(schema) if f.name == "slices")
    if fault == "column":
        schema.pop(at)
    elif fault == "type":
        schema[at] = bigquery.SchemaField("slices", "STRING")
    else:
        schema[at] = bigquery.SchemaField("slices", "INTEGER", "REPEATED")
    client.create_dataset(place)
    client.create_table(bigquery.Table(f"{place}.series", schema=schema))
    with pytest.raises(UsageError) as caught:
        publish_bigquery(one, place, client=client)
    assert caught.value.reason is Reason.BAD_RUN
    assert "series" in str(caught.value)
    assert "slices" in str(caught.value)
    assert count(client, f"{place}.series") == 0


def test_raw_attributes_may_grow(run: Workspace, service: str, tmp_path: Path) -> None:
    """A later run may have written attributes that the first one had not."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    client, place = open_client(service), f"{PROJECT}.grows"
    first = few(run, tmp_path / "one", "dicom_metadata")
    path = first.tables / "dicom_metadata.parquet"
    whole = pq.read_table(path)
    pq.write_table(whole.drop_columns(["ContentLabel", "SegmentSequence"]), path)
    publish_bigquery(first, place, client=client)
    second = few(run, tmp_path / "two", "dicom_metadata")
    (second.root / "run.json").write_text('{"name": "two"}')
    grown = whole.append_column("PatientComments", pa.array(["x"] * whole.num_rows))
    pq.write_table(grown, second.tables / "dicom_metadata.parquet")
    publish_bigquery(second, place, client=client)
    assert count(client, f"{place}.dicom_metadata") == 2 * whole.num_rows
    names = {f.name for f in client.get_table(f"{place}.dicom_metadata").schema}
    assert {"PatientComments", "ContentLabel", "SegmentSequence"} <= names
    publish_bigquery(first, place, client=client)
    assert count(client, f"{place}.dicom_metadata") == 2 * whole.num_rows


# ---------------------------------------------------------------- what goes wrong


def test_a_data_set_in_another_region(run: Workspace, service: str) -> None:
    from google.cloud import bigquery

    client = open_client(service)
    there = bigquery.Dataset(f"{PROJECT}.europe")
    there.location = "EU"
    client.create_dataset(there)
    with pytest.raises(UsageError) as caught:
        publish_bigquery(run, f"{PROJECT}.europe", client=client)
    assert caught.value.reason is Reason.BAD_PARAMETER
    assert "the dataset is in EU, not in US" in str(caught.value)
    assert not list(client.list_tables(f"{PROJECT}.europe"))


@pytest.mark.long
def test_a_quota_in_the_middle_and_again(run: Workspace, service: str, tmp_path: Path) -> None:
    one = few(run, tmp_path / "one", "objects", "series", "slices")
    place, full = f"{PROJECT}.quota", [True]
    loads: list[str] = []

    def fault(method: str, path: str, _: int) -> tuple[int, str] | None:
        if method != "POST" or "/upload/" not in path:
            return None
        loads.append(path)
        return (403, "quotaExceeded") if full[0] and len(loads) > 1 else None

    with failing_proxy(service, fault) as proxy:
        client = open_client(proxy.root)
        with pytest.raises(TransientError) as caught:
            publish_bigquery(one, place, client=client)
        assert caught.value.reason is Reason.RETRY_EXHAUSTED
        assert "quota" in str(caught.value)
        full[0] = False
        counts = publish_bigquery(one, place, client=client)
        for name, rows in counts.items():
            assert count(client, f"{place}.{name}") == rows, "complete, and nothing twice"


@pytest.mark.parametrize(
    ("status", "reason", "kind", "code"),
    [
        (403, "accessDenied", UsageError, Reason.NO_CREDENTIALS),
        (401, "authError", UsageError, Reason.NO_CREDENTIALS),
        (404, "notFound", UsageError, Reason.NOT_FOUND),
        (400, "invalid", UsageError, Reason.BAD_PARAMETER),
    ],
)
def test_answers_of_the_service(
    run: Workspace, service: str, status: int, reason: str, kind: type[Exception], code: Reason
) -> None:
    with failing_proxy(service, lambda *_: (status, reason)) as proxy:
        client = open_client(proxy.root)
        with pytest.raises(kind) as caught:
            publish_bigquery(run, f"{PROJECT}.answers", client=client)
        assert caught.value.reason is code  # type: ignore[attr-defined]


@pytest.mark.long
def test_a_run_without_any_success(service: str, tmp_path: Path) -> None:
    """Its outcomes are published and can be asked for; questions about objects have no rows; no objects can be sent."""
    failed = make_run(tmp_path / "run", 2, broken=2)
    place = f"{PROJECT}.failed"
    counts = publish_bigquery(failed, place, client=open_client(service))
    assert (counts["outcomes"], counts["segmentations"], counts["quantitative_measurements"]) == (2, 0, 0)
    reasons = "SELECT SeriesInstanceUID, reason FROM outcomes ORDER BY 1"
    there = PublishedTables(place, endpoint=service)
    try:
        for ask in (lambda text, given: run_query(failed, text, given), there.run_query):
            assert ask(reasons, {}).to_pylist() == [
                {"SeriesInstanceUID": uid_of(n), "reason": "MISSING_SLICE"} for n in range(2)
            ]
            for name in ("segmentations", "feature_over_cohort", "landmark_coverage", "published_features"):
                assert ask(name, QUESTIONS[name][0]).num_rows == 0
    finally:
        there.close()
    with pytest.raises(UsageError) as caught:
        publish_to(failed, "http://127.0.0.1:1/dicom-web")
    assert caught.value.reason is Reason.NOT_PREPARED


def test_no_credentials(run: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tests.publish.test_objects import no_credentials

    need_package("bigquery", "google.cloud.bigquery")
    no_credentials(monkeypatch, tmp_path)
    with pytest.raises(UsageError) as caught:
        publish_bigquery(run, f"{PROJECT}.results")
    assert caught.value.reason is Reason.NO_CREDENTIALS
    with pytest.raises(UsageError) as asking:
        PublishedTables(f"{PROJECT}.results")
    assert asking.value.reason is Reason.NO_CREDENTIALS


def test_bad_places(run: Workspace, workspace: Workspace) -> None:
    for place in ("nodataset", "a.b; DROP TABLE x", "Project.data"):
        with pytest.raises(UsageError) as caught:
            publish_bigquery(run, place, client=object())
        assert caught.value.reason is Reason.BAD_PARAMETER
    with pytest.raises(UsageError) as missing:
        publish_bigquery(workspace, f"{PROJECT}.results", client=object())
    assert missing.value.reason is Reason.NOT_PREPARED


@pytest.mark.parametrize(
    "name", ["segmentations", "published_features", "published_measurement_groups", "published_annotations"]
)
def test_the_same_texts_on_tables_as_idc_has_them(run: Workspace, service: str, idc: str, name: str) -> None:
    """Only IDC's columns are there: what these questions need, IDC's own tables have."""
    given = {**QUESTIONS[name][0]}
    there = PublishedTables(idc, project=PROJECT, endpoint=service)
    found = there.run_query(name, given).to_pylist()
    there.close()
    assert len(found) == QUESTIONS[name][1]
    assert json.dumps(found, default=str) == json.dumps(run_query(run, name, given).to_pylist(), default=str)


@pytest.fixture(scope="module")
def idc(run: Workspace, service: str) -> str:
    """IDC's project with the strict tables under IDC's names."""
    from google.cloud import bigquery

    place = "bigquery-public-data.idc_v25"
    client = open_client(service)
    client.create_dataset(place, exists_ok=True)
    options: Any = bigquery.ParquetOptions()
    options.enable_list_inference = True
    config = bigquery.LoadJobConfig(source_format="PARQUET", parquet_options=options)
    for table, file in (("segmentations", "strict_segmentations"), ("dicom_metadata", "dicom_metadata")):
        with (run.tables / f"{file}.parquet").open("rb") as handle:
            client.load_table_from_file(handle, f"{place}.{table}", job_config=config).result()
    return place

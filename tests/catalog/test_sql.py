"""BigQuery SQL on DuckDB: what sqlglot gets wrong comes out right, and nothing leaves the list of tables."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from ctenrich.catalog.queries import bind, load_query, parse_query, shipped_queries
from ctenrich.catalog.sql import parameter_names, parse_statement, table_names, to_duckdb
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason

TABLE = "`bigquery-public-data.idc_v25.t`"
TABLES = {"bigquery-public-data.idc_v25.t": "t"}


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    made = duckdb.connect()
    made.execute(
        "CREATE TABLE t AS SELECT * FROM (VALUES "
        "(1, [10, 20, 30], ['a', 'b'], [{'z': 1}, {'z': 5}], 2.5::DOUBLE), "
        "(2, []::INT[], []::VARCHAR[], []::STRUCT(z INT)[], NULL)) v(n, x, s, q, f)"
    )
    return made


def ask(connection: duckdb.DuckDBPyConnection, sql: str, **values: tuple[str, Any]) -> list[tuple[Any, ...]]:
    text = to_duckdb(sql.replace("T!", TABLE), {k: kind for k, (kind, _) in values.items()}, TABLES)
    return connection.execute(text, {k: v for k, (_, v) in values.items()} or None).fetchall()


# expected rows worked out by hand from BigQuery's documentation
CASES = [
    ("SELECT n, a, o FROM T!, UNNEST(x) AS a WITH OFFSET AS o ORDER BY o", [(1, 10, 0), (1, 20, 1), (1, 30, 2)]),
    (
        (
            "SELECT n, ARRAY(SELECT a.z * 10 + o FROM UNNEST(q) AS a WITH OFFSET o WHERE o < 5 ORDER BY o DESC) FROM T! "  # noqa: E501
            "ORDER BY n"
        ),
        [(1, [51, 10]), (2, [])],
    ),
    (
        (
            "SELECT x[OFFSET(n - 1)], x[OFFSET(1)], x[ORDINAL(n + 1)], x[SAFE_OFFSET(n)], x[SAFE_OFFSET(CAST(n AS INT64))],"  # noqa: E501
            " x[SAFE_OFFSET(n - 3)], x[SAFE_OFFSET(9)] FROM T! WHERE n = 1"
        ),
        [(10, 20, 20, 20, 20, None, None)],
    ),
    (
        "SELECT x[OFFSET(o)] = a FROM T!, UNNEST(x) AS a WITH OFFSET AS o",
        [(True,), (True,), (True,)],
    ),
    ("SELECT DIV(n + 6, 2), DIV(9, n + 1), MOD(n + 6, 4) FROM T! WHERE n = 1", [(3, 4, 3)]),
    (
        "SELECT FORMAT('%05d|%s|%.2f|%%', n, s[SAFE_OFFSET(0)], f) FROM T! WHERE n = 1",
        [("00001|a|2.50|%",)],
    ),
    ("SELECT n, a FROM T! LEFT JOIN UNNEST(s) AS a ORDER BY n, a", [(1, "a"), (1, "b"), (2, None)]),
    ("SELECT ARRAY_AGG(n ORDER BY n DESC LIMIT 1), ARRAY_AGG(f IGNORE NULLS) FROM T!", [([2], [2.5])]),
    ("SELECT ARRAY_AGG(f IGNORE NULLS ORDER BY f LIMIT 5) FROM T!", [([2.5],)]),
    ("SELECT n, (SELECT LOGICAL_AND(g > 5) FROM UNNEST(x) AS g) FROM T! ORDER BY n", [(1, True), (2, None)]),
    (
        "SELECT ARRAY_CONCAT(IF(n > 1, ['A'], []), IF(n > 0, ['B'], [])) FROM T! ORDER BY n",
        [(["B"],), (["A", "B"],)],
    ),
    ("SELECT SAFE_CAST('1e3 ' AS FLOAT64), SAFE_CAST('x' AS FLOAT64), SAFE_DIVIDE(1, 0)", [(1000.0, None, None)]),
    (r"SELECT REGEXP_CONTAINS(ARRAY_TO_STRING(s, '\\'), r'^a\\b$') FROM T! WHERE n = 1", [(True,)]),
    (
        "SELECT CAST(SAFE_CAST('1.23456789' AS NUMERIC) AS STRING), TRUNC(CAST('-2.37' AS NUMERIC), 1) = -2.3",
        [("1.234567890", True)],
    ),
    ("WITH t AS (SELECT 7 AS k) SELECT k FROM t", [(7,)]),
    (r"SELECT REGEXP_REPLACE('a.b.c', r'([.])', r'\\\1')", [("a\\.b\\.c",)]),
    ("SELECT t.n FROM T! AS t JOIN T! AS u ON u.n = t.n ORDER BY n DESC", [(2,), (1,)]),
]


@pytest.mark.parametrize(("sql", "expected"), CASES)
def test_bigquery_meaning_survives(connection: Any, sql: str, expected: list[tuple[Any, ...]]) -> None:
    assert ask(connection, sql) == expected


def test_parameters_are_bound_with_their_types(connection: Any) -> None:
    sql = "SELECT n FROM T! WHERE (ARRAY_LENGTH(@p) = 0 OR n IN UNNEST(@p)) AND (@q IS NULL OR f > @q) ORDER BY n"
    assert ask(connection, sql, p=("ARRAY<INT64>", []), q=("FLOAT64", None)) == [(1,), (2,)]
    assert ask(connection, sql, p=("ARRAY<INT64>", [2, 3]), q=("FLOAT64", None)) == [(2,)]
    assert ask(connection, sql, p=("ARRAY<INT64>", [1, 2]), q=("FLOAT64", 1.0)) == [(1,)]


@pytest.mark.parametrize("value", ["'; DROP TABLE t; --", "a' OR '1'='1", "%", "\\", "$q", "@q", "\x00"])
def test_a_value_is_never_sql(connection: Any, value: str) -> None:
    if value == "\x00":
        assert ask(connection, "SELECT n FROM T! WHERE s[SAFE_OFFSET(0)] = @v", v=("STRING", value)) == []
    assert ask(connection, "SELECT n FROM T! WHERE @v IN UNNEST(s)", v=("STRING", value)) == []
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (2,)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT getenv('HOME')",
        "SELECT current_setting('s3_secret_access_key')",
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM `other.idc_v25.t`",
        f"DROP TABLE {TABLE}",
        f"DELETE FROM {TABLE} WHERE TRUE",
        f"CREATE TABLE x AS SELECT * FROM {TABLE}",
        "SELECT 1; SELECT 2",
        "COPY t TO 'x'",
        f"WITH a AS (SELECT * FROM {TABLE}) SELECT * FROM a, b",
        f"SELECT * FROM (WITH b AS (SELECT 1) SELECT * FROM b), b, {TABLE}",
        "SELEC 1",
        "SELECT (",
        "",
        "SELECT " + "(" * 3000 + "1" + ")" * 3000,
        "SELECT '\x00'",
    ],
)
def test_what_leaves_the_list_is_refused(sql: str) -> None:
    with pytest.raises(UsageError) as caught:
        to_duckdb(sql, {}, TABLES)
    assert caught.value.reason is Reason.BAD_QUERY
    assert "\x1b" not in caught.value.message


def test_shipped_queries_have_whole_headers() -> None:
    for name in shipped_queries():
        query = load_query(name)
        parse_statement(query.text)
        assert query.purpose, name
        assert query.columns, name
        assert all(c.description for c in query.columns), name
        assert {p.name for p in query.parameters} == set(parameter_names(query.text)), name
        assert "idc_current" not in query.text
        tables = [t for t in table_names(query.text) if t.count(".") == 2]
        assert all(t.startswith("bigquery-public-data.idc_v") for t in tables), name


HEADER = """-- Purpose: one.
--   And two.
-- Parameters:
--   @a ARRAY<STRING> = [] -- list
--   @b FLOAT64 = 0.5 -- number,
--       goes on
--   @c INT64 -- needed
--   @d STRING = "x" {x, y} -- choice
--   @e BOOL = null -- flag
-- Columns:
--   k INT64 [mm] -- result
SELECT 1 AS k
"""


def test_a_header_is_read() -> None:
    query = parse_query("q", HEADER)
    assert query.purpose == "one. And two."
    assert [(p.name, p.type, p.required) for p in query.parameters] == [
        ("a", "ARRAY<STRING>", False), ("b", "FLOAT64", False), ("c", "INT64", True), ("d", "STRING", False),
        ("e", "BOOL", False),
    ]  # fmt: skip
    assert query.parameters[1].description == "number, goes on"
    assert (query.columns[0].unit, query.columns[0].description) == ("mm", "result")


def test_values_are_read_as_their_types() -> None:
    query = parse_query("q", HEADER)
    given = {"a": "x, y", "b": "1", "c": "7", "d": "y", "e": "true"}
    assert {k: v for k, (_, v) in bind(query, given).items()} == {
        "a": ["x", "y"],
        "b": 1.0,
        "c": 7,
        "d": "y",
        "e": True,
    }
    assert bind(query, {"c": 1, "a": '["p,q"]'})["a"] == ("ARRAY<STRING>", ["p,q"])


def test_numbers_of_a_command_line_are_text_where_text_is_wanted() -> None:
    from ctenrich.cli.console import parse_parameters

    query = parse_query("q", HEADER)
    given = parse_parameters(["a=00123", "b=2.50", "c=7", "d=y"])
    assert [value for _, value in bind(query, given).values()] == [["00123"], 2.5, 7, "y", None]
    for written in ("100012", "2.50", "1.2", "1e5"):
        assert bind(query, parse_parameters([f"a={written}", "c=1"]))["a"] == ("ARRAY<STRING>", [written])
    free = parse_query("q", "SELECT @x, @y, @z")
    assert bind(free, parse_parameters(["x=7", "y=2.50", "z=1.2.3"])) == {
        "x": ("INT64", 7), "y": ("FLOAT64", 2.5), "z": ("STRING", "1.2.3"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        {}, {"c": 1, "zz": 2}, {"c": "1.5"}, {"c": True}, {"c": 2**70}, {"c": 1, "b": "nan"}, {"c": 1, "b": "inf"},
        {"c": 1, "d": "z"}, {"c": 1, "e": "maybe"}, {"c": 1, "a": 5}, {"c": 1, "a": "[1"}, {"c": 1, "a": [["x"]]},
        {"c": [1]},
    ],
)  # fmt: skip
def test_wrong_values_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        bind(parse_query("q", HEADER), given)
    assert caught.value.reason is Reason.BAD_PARAMETER


def test_a_query_without_header_takes_what_its_text_names() -> None:
    query = parse_query("q", "SELECT @x, @y")
    assert bind(query, {"x": 1, "y": ["a"]}) == {"x": ("INT64", 1), "y": ("ARRAY<STRING>", ["a"])}
    with pytest.raises(UsageError, match="BAD_PARAMETER"):
        bind(query, {"x": 1})


IDENTITY = {"collection_id", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"}
GEOMETRY = {"FrameOfReferenceUID", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "Rows", "Columns"}
IDENTITY |= {"StudyID", "AccessionNumber"}
KIND = {"Modality", "ImageType", "NumberOfFrames", "SliceThickness", "Manufacturer", "LossyImageCompression"}
BYTES = {"gcs_url", "instance_size", "instance_hash", "crdc_series_uuid"}
TIMES = {"AcquisitionNumber", "AcquisitionTime", "ContentTime", "TemporalPositionIdentifier"}
ACQUISITION = TIMES | {"ContrastBolusAgent", "ConvolutionKernel", "FilterType", "KVP"}
QUANTITY = {"RescaleIntercept", "RescaleSlope", "RescaleType", "SeriesDescription", "SeriesNumber"}
TO_FILTER_BY = {
    "ManufacturerModelName", "BodyPartExamined", "PatientPosition", "StudyDate", "PatientAge", "PatientSex",
}  # fmt: skip
NEEDED = (
    IDENTITY
    | GEOMETRY
    | KIND
    | BYTES
    | ACQUISITION
    | QUANTITY
    | {"license_short_name", "Source_DOI", "analysis_result_id"}
)


@pytest.mark.parametrize("name", ["select_ct_series", "select_nsclc_radiomics", "select_nlst"])
def test_bigquery_scans_the_needed_columns_of_the_collection_once_and_those_of_modality_again(name: str) -> None:
    from sqlglot import exp
    from sqlglot.optimizer.scope import traverse_scope

    tree = parse_statement(load_query(name).text)
    tables = [t.name for t in tree.find_all(exp.Table)]
    assert tables.count("dicom_all") == 2
    # BigQuery runs a WITH query again for every place that names it
    steps = [cte.alias for cte in tree.find_all(exp.CTE)]
    assert [step for step in steps if tables.count(step) != 1] == []
    scopes = [s for s in traverse_scope(tree) if any(t.name == "dicom_all" for t in s.tables)]
    (others,) = (scope for scope in scopes if "Rows" not in {column.name for column in scope.columns})
    assert {column.name for column in others.columns} == {"SeriesInstanceUID", "Modality", "PatientID", "collection_id"}
    assert "collection_id IN UNNEST(@collections)" in others.expression.args["where"].sql("bigquery")
    (scan,) = (scope for scope in scopes if scope is not others)
    assert isinstance(scan.expression, exp.Select)
    assert "*" not in [str(e) for e in scan.expression.expressions]
    where = scan.expression.args["where"].sql("bigquery")
    assert "collection_id IN UNNEST(@collections)" in where
    assert "Modality = 'CT'" in where
    columns = {column.name for column in scan.columns}
    assert columns <= NEEDED | TO_FILTER_BY | {"dicom_patient_id", "name"}, (
        "columns that no rule and no later step needs"
    )
    assert columns >= {"collection_id", "ImagePositionPatient", "gcs_url"}


# ---------------------------------------------------------------- names in UNNEST

SHADOWS = [
    ("SELECT n, q FROM T! AS t CROSS JOIN UNNEST(q) AS q ORDER BY q.z", [(1, {"z": 1}), (1, {"z": 5})]),
    ("SELECT Q.z, t.q[SAFE_OFFSET(0)].z FROM T! AS t, UNNEST(q) AS Q ORDER BY 1", [(1, 1), (5, 1)]),
    ("SELECT q.z + o FROM T!, UNNEST(q) AS q WITH OFFSET AS o WHERE q.z > 1", [(6,)]),
    ("WITH w AS (SELECT q FROM T!, UNNEST(q) AS q) SELECT q.z FROM w ORDER BY q.z", [(1,), (5,)]),
    ("SELECT (SELECT MAX(q.z) FROM UNNEST(q) AS q) FROM T! ORDER BY n", [(5,), (None,)]),
    ("SELECT x FROM T! AS t, UNNEST(t.x) AS x WHERE x IN (SELECT y + 10 FROM UNNEST([0, 20]) AS y) ORDER BY x",
     [(10,), (30,)]),
    ("SELECT n, z FROM T!, UNNEST(q) AS e WHERE z > 1", [(1, 5)]),
    ("SELECT SUM(z) AS z FROM T!, UNNEST(q) AS e GROUP BY n", [(6,)]),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "rows"), SHADOWS)
def test_the_alias_of_unnest_wins_and_its_fields_are_columns(
    connection: duckdb.DuckDBPyConnection, sql: str, rows: list[tuple[Any, ...]]
) -> None:
    columns = {name: ["n", "x", "s", "q", "f"] for name in TABLES}
    text = to_duckdb(sql.replace("T!", TABLE), {}, TABLES, columns)
    assert connection.execute(text).fetchall() == rows


def test_an_alias_keeps_its_name_in_the_result(connection: duckdb.DuckDBPyConnection) -> None:
    text = to_duckdb(f"SELECT q, q.z FROM {TABLE}, UNNEST(q) AS q", {}, TABLES)
    assert [column[0] for column in connection.execute(text).description] == ["q", "z"]

"""A run as a data set for publication: metadata that validators of others accept, same bytes again, nothing private."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pydicom import dcmread
from tests.conftest import need_package
from tests.support.report_runs import make_run, uid_of
from typer.testing import CliRunner

from ctenrich.cli.main import app
from ctenrich.errors import CtenrichError, InputError, UsageError
from ctenrich.reasons import Reason
from ctenrich.release.about import About, Creator, read_about
from ctenrich.release.changes import read_manifest
from ctenrich.release.licences import check_licence_of_release, licence_key, licence_url
from ctenrich.release.release import Release, ReleaseOptions, make_release
from ctenrich.results.complete import begin_tables, complete_tables
from ctenrich.results.tables import build_tables
from ctenrich.workspace import Workspace

ABOUT = About(
    title="Organs of phantoms",
    description="Masks and volumes of two organs.",
    version="1.0.0",
    licence="CC-BY-4.0",
    doi="10.5281/zenodo.1234567",
    publisher="Zenodo",
    date="2026-11-29",
    keywords=("CT", "DICOM SEG"),
    creators=(
        Creator(family="Carberry", given="Josiah", orcid="0000-0002-1825-0097", affiliation="Brown University"),
        Creator(family="An institute"),
    ),
)


THEIR_WARNINGS = pytest.mark.filterwarnings("default")
"""The validators use what their own dependencies have deprecated."""


def release(workspace: Workspace, out: Path, **options: Any) -> Release:
    return make_release(workspace, out, options=ReleaseOptions(identified=True, **options))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Three series, the last of which failed."""
    return make_run(tmp_path_factory.mktemp("release") / "run", 3, pictures=1, broken=1)


@pytest.fixture(scope="module")
def made(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data-set") / "release"
    release(workspace, out, about=ABOUT)
    return out


@pytest.fixture
def own_run(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the run that a test may change."""
    shutil.copytree(workspace.root, tmp_path / "run")
    return Workspace(tmp_path / "run")


# ---------------------------------------------------------------- contents


def test_the_manifest_has_the_hash_of_every_file(made: Path) -> None:
    listed = read_manifest(made)
    there = {p.relative_to(made).as_posix(): p for p in made.rglob("*") if p.is_file()}
    assert set(listed) == set(there) - {"manifest-sha256.txt"}
    assert all(hashlib.sha256(there[path].read_bytes()).hexdigest() == value for path, value in listed.items())


def test_objects_of_proven_products_alone_are_released_and_the_tables_have_their_rows_alone(
    workspace: Workspace, made: Path
) -> None:
    objects = {dcmread(p, stop_before_pixels=True).SOPInstanceUID for p in made.glob("dicom/*/*/*.dcm")}
    assert objects == {f"{uid_of(n)}.{k}" for n in (0, 1) for k in (4, 6)}, "the scorer has no proof"
    groups = pq.read_table(made / "tables" / "measurement_groups.parquet")
    assert set(groups["SOPInstanceUID"].to_pylist()) <= objects
    assert len(groups) < len(pq.read_table(workspace.tables / "measurement_groups.parquet"))
    segments = pq.read_table(made / "tables" / "segments.parquet")["product"].unique().to_pylist()
    assert segments == ["nnunet:test-organs:3d_fullres:0:nomirror"]
    assert not (made / "tables" / "timings.parquet").exists()
    assert "8 objects" not in (made / "README.md").read_text()
    assert "Not released: 2 objects" in (made / "README.md").read_text()


def test_a_failed_check_of_the_proof_keeps_a_product_out(own_run: Workspace, tmp_path: Path) -> None:
    path = next(own_run.root.glob(f"series/{uid_of(0)}/nnunet*/proof.json"))
    record = json.loads(path.read_text())
    record["checks"][0]["passed"] = False
    path.write_text(json.dumps(record))
    build_tables(own_run)
    release(own_run, tmp_path / "out")
    assert {p.parts[-3] for p in (tmp_path / "out").glob("dicom/*/*/*.dcm")} == {uid_of(1)}


def test_an_object_that_has_changed_since_the_tables_ends_the_release(own_run: Workspace, tmp_path: Path) -> None:
    path = next(own_run.root.glob("series/*/nnunet*/objects/seg.dcm"))
    path.write_bytes(path.read_bytes() + b"\0\0")
    with pytest.raises(InputError) as error:
        release(own_run, tmp_path / "out")
    assert error.value.reason is Reason.HASH_MISMATCH
    assert not (tmp_path / "out" / "manifest-sha256.txt").exists()


def test_tables_that_do_not_list_the_objects_are_refused(own_run: Workspace, tmp_path: Path) -> None:
    path = next(own_run.root.glob("series/*/nnunet*/objects/seg.dcm"))
    shutil.copy(path, path.with_name("other.dcm"))
    with pytest.raises(UsageError, match="1 objects are not as the tables list them") as error:
        release(own_run, tmp_path / "out")
    assert error.value.reason is Reason.NOT_PREPARED


def test_nothing_is_written_into_a_folder_that_has_files(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not an empty folder"):
        release(workspace, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_the_manifest_is_sorted_where_one_uid_begins_with_another(own_run: Workspace, tmp_path: Path) -> None:
    """1.2.3/ comes after 1.2.3.4/, but 1.2.3 before 1.2.3.4."""
    first, longer = uid_of(0), f"{uid_of(0)}.9"
    shutil.move(own_run.series_dir(uid_of(1)), own_run.series_dir(longer))
    for path in own_run.tables.glob("*.parquet"):
        table = pq.read_table(path)
        for place, field in enumerate(table.schema):
            if pa.types.is_string(field.type):
                column = pc.replace_substring(table[field.name], uid_of(1), longer)
                table = table.set_column(place, field, column)
        pq.write_table(table, path)
    begin_tables(own_run)
    complete_tables(own_run, {path.stem: path for path in own_run.tables.glob("*.parquet")})
    out = tmp_path / "out"
    release(own_run, out)
    paths = [line.split("  ")[1] for line in (out / "manifest-sha256.txt").read_text().splitlines()]
    assert paths == sorted(paths)
    objects = [path for path in paths if path.startswith("dicom/")]
    assert [Path(path).parts[1] for path in objects] == [longer, longer, first, first]
    assert set(paths) == {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} - {
        "manifest-sha256.txt"
    }


# ---------------------------------------------------------------- privacy, repetition, changes


def test_a_run_whose_patients_may_be_identified_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        make_release(workspace, tmp_path / "out")
    assert error.value.reason is Reason.IDENTITY_NOT_REMOVED
    assert not (tmp_path / "out").exists()


def test_two_releases_of_a_run_and_of_its_copy_have_the_same_bytes(
    own_run: Workspace, made: Path, tmp_path: Path
) -> None:
    release(own_run, tmp_path / "again", about=ABOUT)
    assert (tmp_path / "again" / "manifest-sha256.txt").read_bytes() == (made / "manifest-sha256.txt").read_bytes()


def test_no_name_and_no_path_is_in_metadata_and_tables(workspace: Workspace, made: Path) -> None:
    texts = [p.read_text() for p in made.iterdir() if p.is_file()]
    texts += [str(pq.read_table(p).to_pylist()) for p in made.glob("tables/*.parquet")]
    for word in ("Doe", str(workspace.root), "/tmp/", "series/1.2"):
        assert not [text for text in texts if word in text], word


def test_a_second_release_says_what_changed(own_run: Workspace, made: Path, tmp_path: Path) -> None:
    same = release(own_run, tmp_path / "same", about=ABOUT, previous=made)
    assert same.changes == {}
    assert not (tmp_path / "same" / "changes.csv").exists()
    assert "byte for byte" in (tmp_path / "same" / "CHANGES.md").read_text()
    product = next(own_run.root.glob(f"series/{uid_of(1)}/nnunet*"))
    shutil.rmtree(product)
    build_tables(own_run)
    other = release(own_run, tmp_path / "other", about=ABOUT, previous=made)
    assert other.changes is not None
    assert other.changes["dicom", "removed"] == 2
    rows = list(csv.DictReader((tmp_path / "other" / "changes.csv").read_text().splitlines()))
    assert len(rows) == sum(other.changes.values())
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert {Path(row["path"]).name for row in rows if row["change"] == "removed"} == {"seg.dcm", "shape_sr.dcm"}
    text = (tmp_path / "other" / "CHANGES.md").read_text()
    assert "DICOM objects: 2 removed" in text
    assert "changed" in text, "tables have other rows now"
    assert (tmp_path / "other" / "changes.csv").read_text().count("removed") == 2


def test_a_previous_manifest_in_another_order_is_compared_alike(own_run: Workspace, made: Path, tmp_path: Path) -> None:
    previous = tmp_path / "previous"
    previous.mkdir()
    lines = (made / "manifest-sha256.txt").read_text().splitlines()
    (previous / "manifest-sha256.txt").write_text("\r\n".join(reversed(lines)))
    assert release(own_run, tmp_path / "same", about=ABOUT, previous=previous).changes == {}
    (previous / "manifest-sha256.txt").write_text("\n".join(lines[:3]) + "\nno hash\n")
    with pytest.raises(UsageError, match="line 4 of the previous"):
        release(own_run, tmp_path / "other", previous=previous)
    assert not (tmp_path / "other").exists()


def test_a_folder_without_a_manifest_is_no_previous_release(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(UsageError, match="no manifest-sha256"):
        release(workspace, tmp_path / "out", previous=tmp_path / "old")


# ---------------------------------------------------------------- metadata


@THEIR_WARNINGS
def test_the_features_are_turtle_that_fulfils_the_shapes_and_has_the_values_of_the_table(made: Path) -> None:
    rdflib = pytest.importorskip("rdflib")
    pyshacl = pytest.importorskip("pyshacl")
    graph = rdflib.Graph().parse(made / "features.ttl")
    shapes = rdflib.Graph().parse(made / "shapes.ttl")
    conforms, _, text = pyshacl.validate(graph, shacl_graph=shapes)
    assert conforms, text
    ro = rdflib.Namespace("http://www.radiomics.org/RO/")
    own = rdflib.Namespace("https://github.com/ctenrich/ctenrich/terms#")
    volumes = {
        (str(graph.value(feature, own.ofSegment)), float(graph.value(feature, ro["010191"])))
        for feature in graph.subjects(rdflib.RDF.type, ro.RNU0)
        if graph.value(feature, own.ofSegment) is not None
    }
    rows = pq.read_table(made / "tables" / "quantitative_measurements.parquet").to_pylist()
    expected = {
        (f"urn:oid:{r['segmentationInstanceUID']}#segment-{r['segmentationSegmentNumber']}", r["valueFloat"])
        for r in rows
        if r["Quantity"]["CodeValue"] == "RNU0"
    }
    assert volumes == expected
    assert len(expected) == 4
    graph.remove((None, own.ofSegment, None))
    assert not pyshacl.validate(graph, shacl_graph=shapes)[0], "the shapes find a feature without its segment"


@THEIR_WARNINGS
def test_datacite_s_own_schema_accepts_the_metadata(made: Path, workspace: Workspace, tmp_path: Path) -> None:
    schema45 = pytest.importorskip("datacite.schema45")
    schema45.validate(json.loads((made / "datacite.json").read_text()))
    release(workspace, tmp_path / "plain")
    plain = json.loads((tmp_path / "plain" / "datacite.json").read_text())
    schema45.validate(plain)
    assert plain["creators"] == [{"name": ":unkn"}], "nothing is made up for what was not stated"
    assert "rightsList" not in plain


@THEIR_WARNINGS
def test_mlcroissant_accepts_the_metadata_and_reads_a_table_by_them(made: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    data = mlcroissant.Dataset(jsonld=made / "croissant.json")
    assert not data.metadata.issues.errors
    assert not data.metadata.issues.warnings
    need_package("data", "pandas")
    first = next(iter(data.records("segments")))
    rows = pq.read_table(made / "tables" / "segments.parquet").to_pylist()
    assert first["segments/segment"].decode() == rows[0]["segment"]
    assert first["segments/voxels"] == rows[0]["voxels"]


def test_the_crate_follows_the_rules_of_ro_crate(made: Path) -> None:
    crate = json.loads((made / "ro-crate-metadata.json").read_text())
    assert crate["@context"] == "https://w3id.org/ro/crate/1.1/context"
    entities = {item["@id"]: item for item in crate["@graph"]}
    assert len(entities) == len(crate["@graph"]), "every entity once"
    assert entities["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    root = entities["./"]
    assert root["datePublished"] == "2026-11-29"
    assert root["license"] == {"@id": "https://creativecommons.org/licenses/by/4.0/"}
    assert {"name", "description"} <= set(root)
    for item in crate["@graph"]:
        for value in item.values():
            for reference in value if isinstance(value, list) else [value]:
                if isinstance(reference, dict) and item["@id"] != "ro-crate-metadata.json":
                    assert reference["@id"] in entities, f"{item['@id']} refers to nothing"
    parts = {part["@id"] for part in root["hasPart"]}
    files = {p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file() and "dicom" not in p.parts}
    assert parts - {"dicom/"} == files - {"ro-crate-metadata.json", "manifest-sha256.txt"}
    assert all(entities[p]["contentSize"] == str((made / p).stat().st_size) for p in parts - {"dicom/"})


VALIDATOR = """
import importlib.resources, json, sys
from rdflib.plugins.shared.jsonld import context
from rocrate_validator import models, services
from rocrate_validator.utils.http import HttpRequester
text = (importlib.resources.files("rocrate") / "data/ro-crate.jsonld").read_text()
class Answer:
    status_code, ok, text, headers = 200, True, text, {"Content-Type": "application/ld+json"}
    def json(self): return json.loads(text)
HttpRequester.get = lambda self, url, **_: Answer()
fetch = context.source_to_json
def local(source, *a, **k):
    return (json.loads(text), None) if "ro/crate" in str(source) else fetch(source, *a, **k)
context.source_to_json = local
settings = services.ValidationSettings(
    rocrate_uri=sys.argv[1], profile_identifier="ro-crate-1.1", requirement_severity=models.Severity.REQUIRED
)
print([f"{i.check.identifier} {i.message}" for i in services.validate(settings).get_issues()])
"""
"""The context of RO-Crate 1.1 comes from the package rocrate 0.13 instead of the network."""


def test_the_validator_of_ro_crate_finds_nothing(made: Path) -> None:
    python = os.environ.get("CTENRICH_ROCRATE_PYTHON")
    if not python:
        pytest.skip(
            "CTENRICH_ROCRATE_PYTHON names no Python with roc-validator and rocrate 0.13 (it needs an older rich)"
        )
    done = subprocess.run([python, "-c", VALIDATOR, made], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr[-2000:]


def test_every_column_is_in_the_data_dictionary(made: Path) -> None:
    lines = (made / "data-dictionary.csv").read_text().splitlines()
    for path in made.glob("tables/*.parquet"):
        for name in pq.read_schema(path).names:
            assert any(line.startswith(f"{path.stem},{name},") for line in lines), (path.stem, name)
    assert not [line for line in lines if line.endswith(",")], "every column has a meaning"


def test_collections_models_and_software_are_listed_with_what_is_known(made: Path) -> None:
    lines = (made / "sources.csv").read_text().splitlines()
    assert any(
        line.startswith("model,test-organs,1,CC0-1.0,https://creativecommons.org/publicdomain") for line in lines
    )
    assert any(line.startswith("software,ctenrich,") and "Apache-2.0" in line for line in lines)
    assert lines[1].startswith("collection,")


def test_the_check_lists_name_what_is_missing(workspace: Workspace, made: Path, tmp_path: Path) -> None:
    full = (made / "checklist-tcia.md").read_text()
    assert "- [x] DOI: 10.5281/zenodo.1234567" in full
    assert "- [ ] DOI of every source collection" in full
    assert "- [ ] Every object states that the patient's identity was removed" in full, "it was not checked here"
    plain = release(workspace, tmp_path / "plain")
    assert plain.missing == (
        "Creators", "ORCID iD of each creator who is a person", "Licence of the data set", "Publisher", "DOI",
        "Version",
    )  # fmt: skip
    assert (tmp_path / "plain" / "checklist-idc.md").read_text().count("- [ ] ") == 9


# ---------------------------------------------------------------- licences and statements


@pytest.mark.parametrize(
    ("licence", "source", "condition"),
    [
        ("CC-BY-4.0", "CC BY-NC 3.0", "not for commercial use"),
        ("CC0-1.0", "CC BY 3.0", "attribution"),
        ("CC-BY-NC-4.0", "CC BY-NC-SA 4.0", "share alike"),
        ("MIT", "CC BY-NC 4.0", "attribution and not for commercial use"),
        ("CC-BY-4.0", "CC BY-ND 4.0", "no derivatives"),
    ],
)
def test_a_licence_that_drops_a_condition_of_a_source_is_refused(licence: str, source: str, condition: str) -> None:
    with pytest.raises(UsageError, match=condition) as error:
        check_licence_of_release(licence, ["CC0", source])
    assert error.value.reason is Reason.BAD_PARAMETER


def test_a_licence_with_the_conditions_of_all_sources_is_accepted() -> None:
    check_licence_of_release("CC-BY-NC-4.0", ["CC BY 3.0", "CC BY-NC 3.0", "CC0", "", "TCIA's own"])
    check_licence_of_release("", ["CC BY-NC 3.0"])


@pytest.mark.parametrize(
    ("name", "key", "url"),
    [
        ("CC BY-NC 3.0", "CC-BY-NC-3.0", "https://creativecommons.org/licenses/by-nc/3.0/"),
        ("cc0", "CC0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
        ("Apache-2.0", "Apache-2.0", "https://spdx.org/licenses/Apache-2.0"),
        ("Terms of the hospital", "Terms of the hospital", ""),
    ],
)
def test_licences_have_one_spelling(name: str, key: str, url: str) -> None:
    assert (licence_key(name), licence_url(name)) == (key, url)


def test_the_statements_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "about.toml"
    path.write_text(
        'title = "Organs of phantoms"\nlicence = "CC BY 4.0"\ndate = 2026-11-29\nkeywords = ["CT"]\n'
        '[[creators]]\nfamily = "Carberry"\ngiven = "Josiah"\norcid = "0000-0002-1825-0097"\n'
    )
    about = read_about(path)
    assert about.licence == "CC-BY-4.0"
    assert about.date == "2026-11-29"
    assert about.creators[0].name == "Carberry, Josiah"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = ", "not TOML"),
        ('titel = "x"', "not a statement"),
        ("title = 3", "not a text"),
        ('date = "29.11.2026"', "not a date"),
        ('doi = "https://doi.org/10.5281/zenodo.1"', "not a DOI"),
        ('creators = ["Doe"]', "creators are tables"),
        ('[[creators]]\ngiven = "Josiah"', "no family name"),
        ('[[creators]]\nfamily = "C"\norcid = "https://orcid.org/0000"', "not an ORCID"),
        ("keywords = 3", "keywords are a list"),
    ],
)
def test_wrong_statements_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "about.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_about(path)
    with pytest.raises(CtenrichError, match="there is no"):
        read_about(tmp_path / "no.toml")


def test_the_command_refuses_what_is_not_a_run(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["release", str(tmp_path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    done = CliRunner().invoke(app, ["release", str(tmp_path / "no"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2

"""A catalog of another package: one file and one entry point."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.plugins import install_plugin

from ctenrich.catalog import CATALOGS, GROUP, open_catalog
from ctenrich.catalog.base import Catalog
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.resources import registered
from ctenrich.select.selection import select_cohort

SOURCE = """
import pyarrow as pa

from ctenrich.catalog.base import CatalogKind, CatalogOptions, QueryResult


class ListCatalog:
    name, engine, version = "list", "python", "list-1"
    instance_level, complete = False, True

    def __init__(self, series, limit):
        self.series, self.limit = series, limit

    def run(self, query, parameters):
        rows = [
            {"SeriesInstanceUID": uid, "SOPInstanceUID": f"{uid}.{n}", "gcs_url": f"gs://b/{uid}/{n}.dcm"}
            for uid in self.series
            for n in (1, 2)
        ]
        return QueryResult(pa.Table.from_pylist(rows))

    def estimate(self, query, parameters):
        return None

    def close(self):
        pass


def open_list(argument: str, options: CatalogOptions):
    return ListCatalog(argument.split(","), options.byte_limit) if argument else None


KIND = CatalogKind(form="list:UID,UID", open=open_list)
"""


@pytest.fixture
def list_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, "list-catalogs", GROUP, "list = ctenrich_list_catalog:KIND", ctenrich_list_catalog=SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_catalog_of_another_package_is_queried(list_catalog: None) -> None:
    catalog: Catalog = open_catalog("list:1.2.3,1.2.4", byte_limit=5)
    assert (catalog.name, catalog.limit) == ("list", 5)  # type: ignore[attr-defined]
    query = Path(__file__).parents[2] / "queries" / "select_nsclc_radiomics_paper.sql"
    cohort = select_cohort(query, catalog, {}, companions=False).cohort
    assert [entry.series_instance_uid for entry in cohort.series] == ["1.2.3", "1.2.4"]
    assert [len(entry.instances) for entry in cohort.series] == [2, 2]


@pytest.mark.parametrize("spec", ["list:", "list", "lists:1.2", "folder:", "idc:other", "parquet"])
def test_another_specification_names_all_that_there_are(list_catalog: None, spec: str) -> None:
    with pytest.raises(UsageError, match="there is no catalog") as caught:
        open_catalog(spec)
    assert caught.value.reason is Reason.BAD_PARAMETER
    known = (
        "folder:FILE, idc[:fetch], parquet:URI, "
        "bigquery[:PROJECT], dicom://HOST:PORT/AET, dicomweb+https://HOST/ROOT, dicomweb+http://HOST/ROOT, "
        "xnat+https://HOST/PROJECT, xnat+http://HOST/PROJECT, tcia:COLLECTION, "
        "nbia+https://HOST/PATH/COLLECTION, nbia+http://HOST/PATH/COLLECTION or list:UID,UID"
    )
    assert caught.value.hint.endswith(known)


def test_an_object_that_is_no_kind_of_catalog_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, "wrong-catalogs", GROUP, "wrong = pathlib:Path")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="not a CatalogKind") as caught:
        open_catalog("wrong:x")
    assert caught.value.reason is Reason.BAD_PLUGIN


@pytest.mark.parametrize("name", sorted(CATALOGS))
def test_a_built_in_kind_states_how_it_is_written(name: str) -> None:
    kind = registered(name, CATALOGS, GROUP)
    assert kind.form.startswith(name)  # type: ignore[union-attr]

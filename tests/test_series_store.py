"""The series store: every record has one place, and comes back as it was saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from ctenrich.records import FetchedSeries, Product, ProductKind, Proof, SegmentMasks, ShapeMeasurements, SliceScores
from ctenrich.series_store import PRODUCT_RECORDS, RECORD_FILES, SERIES_RECORDS, SeriesStore
from ctenrich.workspace import Workspace

UID = "1.2.3"
EXPERT = Product(ProductKind.EXPERT)


def masks(product: Product = EXPERT, **timings: float) -> SegmentMasks:
    return SegmentMasks(product, UID, (2, 3, 4), (), None, "ab", timings=timings)


@pytest.fixture
def store(tmp_path: Path) -> SeriesStore:
    return SeriesStore(Workspace(tmp_path / "run"))


def test_no_two_records_share_a_file() -> None:
    assert len(set(RECORD_FILES.values())) == len(RECORD_FILES) == len(SERIES_RECORDS) + len(PRODUCT_RECORDS)


def test_a_record_comes_back_from_the_place_that_its_class_has(store: SeriesStore) -> None:
    path = store.save(masks(), UID, EXPERT)
    assert path == store.workspace.root / "series" / UID / "expert" / "masks.json"
    assert store.masks(UID, EXPERT) == masks() == store.find(SegmentMasks, UID, EXPERT)
    fetched = FetchedSeries(UID, "1.2", ())
    assert store.save(fetched, UID) == store.workspace.root / "series" / UID / "fetched.json"
    assert store.fetched(UID) == fetched


def test_a_record_that_was_not_saved_is_not_prepared(store: SeriesStore) -> None:
    assert store.find(ShapeMeasurements, UID, EXPERT) is None
    assert not store.has(ShapeMeasurements, UID, EXPERT)
    for ask in (lambda: store.shape(UID, EXPERT), lambda: store.digest(ShapeMeasurements, UID, EXPERT)):
        with pytest.raises(InputError) as caught:
            ask()
        assert caught.value.reason is Reason.NOT_PREPARED


def test_a_file_that_holds_something_else_is_a_bad_run(store: SeriesStore) -> None:
    path = store.save(masks(), UID, EXPERT)
    path.write_text(json.dumps({"product": 3}))
    with pytest.raises(InputError) as caught:
        store.masks(UID, EXPERT)
    assert caught.value.reason is Reason.BAD_RUN


def test_a_product_record_without_its_product_is_a_mistake_of_the_caller(store: SeriesStore) -> None:
    with pytest.raises(TypeError, match="Proof"):
        store.path(Proof, UID)


def test_the_digest_changes_with_the_record_but_not_with_its_timings(store: SeriesStore) -> None:
    digests = []
    for record in (masks(read=1.0), masks(read=2.0), masks(Product(ProductKind.EXPERT, "other"), read=1.0)):
        store.save(record, UID, EXPERT)
        digests.append(store.digest(SegmentMasks, UID, EXPERT))
    assert digests[0] == digests[1] != digests[2]


def test_products_are_found_by_what_their_folders_hold(store: SeriesStore) -> None:
    network = Product(ProductKind.NNUNET, "organs", "3d_fullres", ("0",))
    for product in (network, EXPERT):
        store.save(masks(product), UID, product)
    store.volume_dir(UID).mkdir()
    assert list(store.products(UID)) == [EXPERT, network]
    assert list(store.products("1.2.4")) == []
    assert store.series() == [UID]


def test_the_records_of_a_product_are_loaded_once(store: SeriesStore) -> None:
    path = store.save(masks(), UID, EXPERT)
    records = store.product(UID, EXPERT)
    assert records.masks == masks()
    path.unlink()
    assert records.masks == masks()
    with pytest.raises(InputError):
        records.get(SliceScores)

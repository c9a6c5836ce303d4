"""Facts about products in a few bits, and SOP Instance UIDs in 16 bytes."""

from __future__ import annotations

from ctenrich.release.chosen import ChosenProducts, ObjectUids, ProductFact


def test_a_product_is_proven_if_it_is_done_and_no_check_failed() -> None:
    products = ChosenProducts()
    facts = {
        "proven": (ProductFact.DONE, ProductFact.CHECKED, ProductFact.CHECKED),
        "failed": (ProductFact.DONE, ProductFact.CHECKED, ProductFact.FAILED),
        "unchecked": (ProductFact.DONE,),
        "not done": (ProductFact.CHECKED,),
    }
    for product, found in facts.items():
        for fact in found:
            products.add("1.2", product, fact)
    assert [name for name in facts if products.is_proven("1.2", name)] == ["proven"]
    assert not products.is_proven("1.2", "other")
    assert not products.is_proven("1.3", "proven")
    assert products.of("1.2", "failed") == ProductFact.DONE | ProductFact.CHECKED | ProductFact.FAILED


def test_series_with_objects_are_listed_by_uid() -> None:
    products = ChosenProducts()
    for uid, product, fact in (
        ("1.3", "b", ProductFact.HAS_OBJECTS),
        ("1.2.4", "a", ProductFact.DONE),
        ("1.2", "b", ProductFact.HAS_OBJECTS),
        ("1.2", "a", ProductFact.HAS_OBJECTS),
    ):
        products.add(uid, product, fact)
    assert list(products.series()) == ["1.2", "1.3"]
    assert products.with_objects("1.2") == ["a", "b"]
    assert products.with_objects("1.9") == []


def test_uids_that_were_given_are_found_and_no_others() -> None:
    uids = [f"1.2.840.{n}" for n in range(5000)]
    found = ObjectUids(reversed(uids), len(uids))
    assert found.contain(uids).all()
    assert not found.contain([None, "", "1.2.840", *(f"{uid}.1" for uid in uids)]).any()
    assert found.contain(["1.2.840.7", None, "x", "1.2.840.4999"]).tolist() == [True, False, False, True]
    assert found.contain([]).tolist() == []
    assert ObjectUids((), 0).contain(["1.2"]).tolist() == [False]

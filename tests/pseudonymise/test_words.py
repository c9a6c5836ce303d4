"""Free text: what the vocabulary knows stays, everything else becomes a token."""

from __future__ import annotations

import pytest

from ctenrich.pseudonymise.key import Key
from ctenrich.pseudonymise.words import TextCleaner, read_words, vocabulary

KEY = Key(secret=bytes(32))


def clean(text: str, vr: str = "LO", extra: frozenset[str] = frozenset()) -> str:
    return TextCleaner(KEY, vocabulary() | extra).clean(text, vr)


@pytest.mark.parametrize(
    "text",
    [
        "GTV-1", "PTV_70", "CTVn1", "GTVp", "Spinal cord", "SpinalCord_PRV05", "Lung_L", "LungR", "lung_sin",
        "Lunge links",
        "Heart_old", "Rückenmark", "zPTV_opt", "Parotid L", "CHEST/ABD 5.0 B30f", "T2w TSE sag", "PTV 50.4 Gy",
        "0.976562", "Bladder", "Femur_Head_L", "Brainstem", "A_Aorta", "thorax w/o contrast", "120 kV", "35 x 2.0 Gy",
        "Opt Chiasm", "",
    ],
)  # fmt: skip
def test_names_of_structures_and_protocols_stay(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("PTV Mueller", "Mueller"), ("Thorax_Schmidt_2", "Schmidt"), ("Dr. Yilmaz: GTV", "Yilmaz"),
        ("MRN 1234567", "1234567"),
        ("born 12.03.1985", "12.03"), ("12/03/85", "12/03"), ("tel 030 123 456", "123"), ("study 1.2.840.99.1", "840"),
        ("GTVMüller", "üller"), ("AB12CD34", "AB12"), ("2020-01-02", "2020"), ("J0HNSON", "J0HNSON"), ("Ünal", "nal"),
        ("张伟", "张"),
        ("PAT4711XY", "4711"),
    ],
)  # fmt: skip
def test_names_dates_and_numbers_go(text: str, secret: str) -> None:
    assert secret.casefold() not in clean(text).casefold()


def test_a_word_has_one_token_and_names_stay_different() -> None:
    assert clean("PTV Mueller") == clean("PTV MUELLER") != clean("PTV Maier")
    assert clean("PTV Mueller").startswith("PTV x")


def test_cleaning_twice_changes_nothing() -> None:
    once = clean("Boost Mueller 1985-01-02")
    assert clean(once) == once


def test_the_longest_value_of_a_representation_is_kept() -> None:
    assert len(clean("Li Wu Xi Ho Ng Ku", "SH")) <= 16
    assert len(clean("Meier " * 10, "LO")) <= 64


def test_words_of_a_user() -> None:
    extra = read_words("# names of our protocols\nSTWSTRATEGY\n")
    assert clean("stwstrategy lung", extra=extra) == "stwstrategy lung"
    assert "comment" not in read_words("# comment\n")
    assert "names" not in extra


def test_the_vocabulary_has_no_names_of_persons() -> None:
    """The twenty most frequent surnames of Germany and of the United States, without those that are words."""
    names = (
        "müller schmidt schneider fischer weber meyer wagner becker schulz hoffmann schäfer koch bauer richter klein "
        "schröder neumann schwarz smith johnson williams jones garcia miller davis rodriguez martinez hernandez lopez "
        "gonzalez wilson anderson thomas taylor moore jackson martin lee"
    )
    assert not vocabulary() & {*names.split()}

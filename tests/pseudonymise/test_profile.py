"""The table of PS3.15 and the options: actions that the standard states, read by hand from its text."""

from __future__ import annotations

import pytest
from pydicom.datadict import DicomDictionary, dictionary_VR, private_dictionary_VR, tag_for_keyword
from pydicom.tag import Tag

from ctenrich.errors import UsageError
from ctenrich.pseudonymise.profile import (
    Action,
    Clean,
    Dates,
    Options,
    PrivateAttribute,
    Profile,
    Retain,
    added_attributes,
    read_private_attributes,
    standard_table,
)

ALL = Options(dates=Dates.REMOVE, clean=frozenset())


def action(keyword: str, options: Options = ALL) -> Action:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return Profile(options).action(Tag(tag))


def options(**changes: object) -> Options:
    return Options(**({"dates": Dates.REMOVE, "clean": frozenset()} | changes))  # type: ignore[arg-type]


def test_the_table_has_the_rows_of_the_standard() -> None:
    table = standard_table()
    assert len(table) == 621
    names = [name for name in (*table, *added_attributes()) if name[0].isupper()]
    assert [name for name in names if tag_for_keyword(name) is None] == []
    assert set(table) - set(names) == {"50xxxxxx", "60xx3000", "60xx4000", "private"}
    basic = {row["basic"] for row in table.values()}
    assert basic == {"X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"}


def test_every_name_of_a_person_is_hidden_and_every_date_moved() -> None:
    profile = Profile(Options(retain=frozenset(Retain), clean=frozenset(Clean)))
    for tag, (vr, *_) in DicomDictionary.items():
        if vr == "PN":
            assert profile.action(Tag(tag)) not in (Action.KEEP, Action.CLEAN), hex(tag)
        if vr in ("DA", "DT") and "Version" not in DicomDictionary[tag][4]:
            assert profile.action(Tag(tag)) in (Action.DATE, Action.REMOVE, Action.EMPTY, Action.DUMMY), hex(tag)


@pytest.mark.parametrize(
    ("keyword", "expected"),
    [
        ("PatientName", Action.EMPTY), ("PatientID", Action.DUMMY), ("OtherPatientIDs", Action.REMOVE),
        ("StudyInstanceUID", Action.UID), ("StudyDescription", Action.REMOVE), ("ROIName", Action.EMPTY),
        ("StructureSetLabel", Action.DUMMY), ("StudyDate", Action.EMPTY), ("PatientSex", Action.EMPTY),
        ("SourceImageSequence", Action.UID), ("InstitutionName", Action.DUMMY), ("Modality", Action.KEEP),
        ("TargetFrameOfReferenceUID", Action.UID), ("EvaluatorName", Action.EMPTY), ("DoseComment", Action.EMPTY),
        ("PixelDataProviderURL", Action.REMOVE), ("EncryptedAttributesSequence", Action.REMOVE),
        ("StudyUpdateDateTime", Action.EMPTY), ("Manufacturer", Action.KEEP), ("ContentSequence", Action.DUMMY),
    ],
)  # fmt: skip
def test_the_basic_profile(keyword: str, expected: Action) -> None:
    assert action(keyword) is expected


@pytest.mark.parametrize(
    ("keyword", "chosen", "expected"),
    [
        ("StudyDate", options(dates=Dates.SHIFT), Action.DATE),
        ("StudyDate", options(dates=Dates.KEEP), Action.DATE),
        ("PatientBirthDate", options(dates=Dates.KEEP), Action.EMPTY),
        ("CalibrationDate", options(retain=frozenset({Retain.DEVICE})), Action.REMOVE),
        ("CalibrationDate", options(retain=frozenset({Retain.DEVICE}), dates=Dates.SHIFT), Action.DATE),
        ("StationName", options(retain=frozenset({Retain.DEVICE})), Action.KEEP),
        ("RadiationMachineName", options(retain=frozenset({Retain.DEVICE})), Action.KEEP),
        ("InstitutionName", options(retain=frozenset({Retain.INSTITUTION})), Action.KEEP),
        ("PatientSex", options(retain=frozenset({Retain.CHARACTERISTICS})), Action.KEEP),
        ("Allergies", options(retain=frozenset({Retain.CHARACTERISTICS})), Action.CLEAN),
        ("StudyInstanceUID", options(retain=frozenset({Retain.UIDS})), Action.KEEP),
        ("TargetFrameOfReferenceUID", options(retain=frozenset({Retain.UIDS})), Action.KEEP),
        ("ROIName", options(clean=frozenset({Clean.DESCRIPTORS})), Action.CLEAN),
        ("SegmentLabel", options(clean=frozenset({Clean.DESCRIPTORS})), Action.CLEAN),
        ("ContentSequence", options(clean=frozenset({Clean.STRUCTURED_CONTENT})), Action.CLEAN),
        ("GraphicAnnotationSequence", options(clean=frozenset({Clean.GRAPHICS})), Action.CLEAN),
        ("ContextGroupVersion", options(dates=Dates.SHIFT), Action.KEEP),
        ("ContextGroupVersion", options(), Action.DUMMY),
    ],
)
def test_options(keyword: str, chosen: Options, expected: Action) -> None:
    assert action(keyword, chosen) is expected


def test_overlays_curves_and_unknown_attributes_go() -> None:
    profile = Profile(Options(retain=frozenset(Retain), clean=frozenset(Clean)))
    for tag in (0x60003000, 0x60004000, 0x60020022, 0x50003000, 0x00089999, 0x00660FFE):
        assert profile.action(Tag(tag)) is Action.REMOVE


def test_long_texts_outside_the_table_are_cleaned_or_listed() -> None:
    """No free text of the dictionary is kept but for those of the list of added attributes."""
    profile = Profile(options(clean=frozenset({Clean.DESCRIPTORS})))
    kept = {
        keyword
        for tag, (vr, _, _, _, keyword) in DicomDictionary.items()
        if tag > 0x7FFFF and vr in ("LO", "SH", "ST", "LT", "UT", "UC") and profile.action(Tag(tag)) is Action.KEEP
    }
    assert kept <= {name for name, row in added_attributes().items() if row["action"] == "K"}


def test_codes_of_the_options() -> None:
    """CID 7050 of PS3.16."""
    chosen = Options(retain=frozenset(Retain), clean=frozenset(Clean))
    values = [str(item.CodeValue) for item in chosen.codes()]
    assert values == [
        "113100", "113103", "113104", "113105", "113107", "113108", "113109", "113110", "113111", "113112",
    ]  # fmt: skip
    assert [str(item.CodeValue) for item in options(dates=Dates.KEEP).codes()] == ["113100", "113106"]
    assert {str(item.CodingSchemeDesignator) for item in chosen.codes()} == {"DCM"}
    assert all(len(str(item.CodeMeaning)) <= 64 for item in chosen.codes())


def test_lists_of_private_attributes() -> None:
    found = read_private_attributes("creator,group,element\nVENDOR 1,0019,0a\n")
    assert found == {PrivateAttribute(creator="VENDOR 1", group=0x19, element=0x0A)}
    assert PrivateAttribute(creator="Philips PET Private Group", group=0x7053, element=0) in read_private_attributes()
    for text in ("creator,group,element\nV,0018,0a\n", "creator,group,element\nV,0019,00aa\n", "a,b\n1,2\n"):
        with pytest.raises(UsageError, match="BAD_PARAMETER"):
            read_private_attributes(text)


def test_private_attributes_of_the_list_are_those_of_pydicoms_dictionary() -> None:
    """None of them is a text of any length, a name, a date or a UID."""
    for one in read_private_attributes():
        tag = Tag(one.group, 0x1000 | one.element)
        kind = private_dictionary_VR(tag, one.creator)  # KeyError for an attribute that the creator does not have
        assert kind in {"CS", "DS", "IS", "SH", "FL", "FD", "SS", "SL", "US", "UL"}, one
    found = {(one.creator, one.group, one.element) for one in read_private_attributes()}
    assert ("ELSCINT1", 0x00E1, 0x50) in found  # Acquisition Duration
    assert ("ELSCINT1", 0x01E1, 0x50) not in found


def test_what_is_moved_as_a_date_is_one() -> None:
    others = {
        name
        for name, row in standard_table().items()
        if row["modified_dates"] and dictionary_VR(name) not in ("DA", "DT", "TM") and name not in added_attributes()
    }
    assert others == {"FrameOriginTimestamp", "CertifiedTimestamp"}, "bytes, which are removed"

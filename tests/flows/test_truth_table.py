"""Triggers by the rows of the truth table: RadDeploy's semantics, and the documented differences."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.flows import case_files, flow_of

from ctenrich.flows import patterns
from ctenrich.flows.errors import BadFlowError
from ctenrich.flows.patterns import SlowPatternError
from ctenrich.flows.triggers import match_flow, match_flows

CT, MR = {"Modality": "CT"}, {"Modality": "MR"}
FLAIR, T1 = {"Modality": "MR", "SeriesDescription": "t2 FLAIR"}, {"Modality": "MR", "SeriesDescription": "T1"}
AXIAL = {"ImageType": r"ORIGINAL\PRIMARY\AXIAL"}
HEAD = {"SeriesDescription": "Head Contrast"}
STRUCTURES = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3"}

ROWS = [
    ("1 search of one value", "Modality: [CT]", [CT, MR], [0]),
    ("2 a part is found", "Modality: [C]", [CT], [0]),
    ("3 case counts", "SeriesDescription: [head]", [HEAD], None),
    ("4 unless the pattern says no", "SeriesDescription: ['(?i)head']", [HEAD], [0]),
    ("5 both patterns in one file", "SeriesDescription: [Head, Contrast]", [HEAD], [0]),
    (
        "6 patterns of one trigger in two files",
        "SeriesDescription: [Head, Contrast]",
        [{"SeriesDescription": "Head"}, {"SeriesDescription": "Contrast"}],
        None,
    ),
    ("9 a negative pattern excludes files", "Modality: [MR]\n    SeriesDescription: ['~FLAIR']", [FLAIR, T1], [1]),
    ("10 no file is left", "Modality: [MR]\n    SeriesDescription: ['~FLAIR']", [FLAIR], None),
    ("11 what is absent does not hold it", "Modality: [MR]\n    SeriesDescription: ['~FLAIR']", [MR], [0]),
    ("12 beside one that does", "Modality: [MR]\n    SeriesDescription: ['~FLAIR']", [MR, FLAIR], [0]),
    ("13 absent is not the text None", "SeriesDescription: ['on']", [CT], None),
    ("14 absent beside present", "SeriesDescription: ['on']", [CT, HEAD], [1]),
    ("15 an empty value is there", "SeriesDescription: ['.*']", [{"SeriesDescription": ""}, CT], [0]),
    ("16 leading zeros stay", "PatientID: ['^000123$']", [{"PatientID": "000123"}], [0]),
    ("17 a number is not converted", "PatientID: ['^123$']", [{"PatientID": "000123"}], None),
    ("18 whatever else is there", "PatientID: ['^000123$']", [{"PatientID": "000123"}, {"PatientID": "A1"}], [0]),
    ("19 dates as sent", "StudyDate: ['^20240131$']", [{"StudyDate": "20240131"}], [0]),
    ("20 several values", "ImageType: [AXIAL]", [AXIAL], [0]),
    ("21 the first of several values", "ImageType: ['^ORIGINAL']", [AXIAL], [0]),
    ("27 a UID is found in a longer one", "SOPClassUID: ['1.2.840.10008.5.1.4.1.1.4']", [STRUCTURES], [0]),
    ("27 unless it is anchored", r"SOPClassUID: ['^1\.2\.840\.10008\.5\.1\.4\.1\.1\.4$']", [STRUCTURES], None),
    ("28 numbers as written", "SliceThickness: ['^3$']", [{"SliceThickness": "3.0"}], None),
    ("29 numbers as written", r"SliceThickness: ['^3\.0$']", [{"SliceThickness": "3.0"}], [0]),
    ("30 the second tilde is text", "SeriesDescription: ['~~x']", [{"SeriesDescription": "x"}], [0]),
    ("30 and is looked for", "SeriesDescription: ['~~x']", [{"SeriesDescription": "~x"}], None),
    (
        "31 private attributes by creator",
        "'(0019,\"ACME 1.0\",23)': [on]",
        [{'(0019,"ACME 1.0",23)': "on"}, {'(0019,"OTHER",23)': "on"}],
        [0],
    ),
]


@pytest.mark.parametrize(("trigger", "files", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_rows_of_one_trigger(trigger: str, files: list[dict[str, str]], expected: list[int] | None) -> None:
    match = match_flow(flow_of(f"triggers:\n  - {trigger}"), case_files(*files))
    assert (list(match.files) if match.fires else None) == expected
    assert bool(match.failures) is (expected is None)


TWO = "triggers:\n  - Modality: [CT]\n  - Modality: [MR]"
OVERLAP = "triggers:\n  - Modality: [CT]\n  - SeriesDescription: [Head]"
VETO = "triggers:\n  - Modality: [MR]\nnever:\n  - SeriesDescription: [FLAIR]"


@pytest.mark.parametrize(
    ("text", "files", "expected"),
    [
        pytest.param(TWO, [CT, MR], [0, 1], id="7 each trigger somewhere"),
        pytest.param(TWO, [CT], None, id="8 one trigger nowhere"),
        pytest.param("triggers:\n  - {}", [CT, MR], [0, 1], id="23 an empty trigger takes all"),
        pytest.param(OVERLAP, [CT | HEAD, CT], [0, 1], id="24 a file once although two triggers match"),
        pytest.param(VETO, [FLAIR, T1], None, id="9 never excludes the case"),
        pytest.param(VETO, [T1, MR], [0, 1], id="9 never without such a file"),
        pytest.param("triggers:\n  - {}", [], None, id="no file"),
    ],
)
def test_rows_of_whole_flows(text: str, files: list[dict[str, str]], expected: list[int] | None) -> None:
    match = match_flow(flow_of(text), case_files(*files))
    assert (list(match.files) if match.fires else None) == expected


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        pytest.param("triggers: []", (1, 11), "a flow needs triggers or roles", id="22"),
        pytest.param("triggers:\n  - Modality: ['C(T']", (2, 18), "no regular expression", id="25"),
        pytest.param("triggers:\n  - Modalty: [CT]", (2, 5), "did you mean Modality", id="26"),
        pytest.param("triggers:\n  - '': [x]", (2, 5), "without a keyword", id="31"),
        pytest.param("triggers:\n  - '(0019,1023)': [x]", (2, 5), "creator is not named", id="31 by tag"),
        pytest.param("triggers:\n  - ReferencedStudySequence: [x]", (2, 5), "a sequence", id="top level only"),
        pytest.param("triggers:\n  - PixelData: [x]", (2, 5), "has no text", id="no pixels"),
    ],
)
def test_rows_that_are_refused_when_the_file_is_read(text: str, place: tuple[int, int], message: str) -> None:
    with pytest.raises(BadFlowError, match=message) as caught:
        flow_of(text)
    assert caught.value.faults[0].place == place


def test_roles_across_series_and_their_number() -> None:
    flow = flow_of(
        """
        roles:
          CT: {Modality: [^CT$]}
          PET: {Modality: [^PT$]}
          MR: {Modality: [^MR$], series: 2}
        """
    )
    ct, pet = {"Modality": "CT"}, {"Modality": "PT"}
    mr = [{"Modality": "MR", "SeriesInstanceUID": uid} for uid in ("2.1", "2.1", "2.2")]
    match = match_flow(flow, case_files(ct, pet, *mr))
    assert match.fires
    assert match.roles == {"CT": (0,), "PET": (1,), "MR": (2, 3, 4)}
    assert match.files == (0, 1, 2, 3, 4)
    missing = match_flow(flow, case_files(ct, pet, *mr[:2]))
    assert not missing.fires
    assert missing.wanted
    assert (missing.failures[0].part, missing.failures[0].text) == ("role MR", "1 of 2 series")
    assert not match_flow(flow, case_files(ct, *mr)).fires


def test_a_fallback_fires_only_where_no_other_flow_does() -> None:
    flows = (
        flow_of("name: ct\ntriggers:\n  - Modality: [CT]"),
        flow_of("name: rest\nfallback: true\ntriggers:\n  - {}"),
    )
    assert [one.fires for one in match_flows(flows, case_files(CT))] == [True, False]
    assert [one.fires for one in match_flows(flows, case_files(MR))] == [False, True]


def test_the_nearest_file_and_the_pattern_that_failed() -> None:
    flow = flow_of("triggers:\n  - Modality: [CT]\n    SeriesDescription: [Head, '~Scout']")
    files = case_files(MR, {"Modality": "CT", "SeriesDescription": "Head Scout"}, {"Modality": "CT"})
    (failure,) = match_flow(flow, files).failures
    assert (failure.part, failure.attribute, failure.pattern, failure.text) == (
        "trigger 1", "SeriesDescription", "~Scout", "Head Scout",
    )  # fmt: skip
    assert failure.near
    (veto,) = match_flow(flow_of(VETO), case_files(T1, FLAIR)).failures
    assert (veto.part, veto.pattern, veto.text) == ("never 1", "FLAIR", "t2 FLAIR")


def test_a_pattern_that_takes_exponential_time_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = r"(?:A+b?)+C"
    with pytest.raises(BadFlowError, match="exponential"):
        flow_of(f"triggers:\n  - SeriesDescription: ['{slow}']")
    flow = flow_of(r"triggers:" "\n" r"  - SeriesDescription: ['^(?:[\u0101]+)+C']")
    monkeypatch.setattr(patterns, "SEARCH_SECONDS", 0.05)
    with pytest.raises(SlowPatternError):
        match_flow(flow, case_files({"SeriesDescription": "\u0101" * 60}))


# ---------------------------------------------------------------- a short oracle

WORDS = st.sampled_from(["CT", "MR", "Head", "head", "Contrast", "", "T1 FLAIR", r"A\B"])
FILES = st.lists(
    st.dictionaries(st.sampled_from(["Modality", "SeriesDescription", "ImageType"]), WORDS, max_size=3), max_size=5
)
PATTERNS = st.sampled_from(["C", "^CT$", "~FLAIR", "(?i)head", ".*", "~~", "[AB]", "~.", "$"])
TRIGGER = st.dictionaries(
    st.sampled_from(["Modality", "SeriesDescription", "ImageType"]),
    st.lists(PATTERNS, min_size=1, max_size=3),
    max_size=3,
)


def oracle(
    triggers: list[dict[str, list[str]]], never: list[dict[str, list[str]]], files: list[dict[str, str]]
) -> set[int] | None:
    """Input of a flow by the definition, in few lines; None if it does not fire."""

    def holds(pattern: str, text: str | None) -> bool:
        negative = pattern[:1] == "~"
        found = text is not None and re.search(pattern[negative:], text) is not None
        return found != negative

    def matching(trigger: dict[str, list[str]]) -> set[int]:
        return {
            n for n, file in enumerate(files) if all(holds(p, file.get(k)) for k, ps in trigger.items() for p in ps)
        }

    found = [matching(trigger) for trigger in triggers]
    return set().union(*found) if all(found) and not any(map(matching, never)) else None


@settings(max_examples=60, deadline=None)
@given(
    triggers=st.lists(TRIGGER, min_size=1, max_size=3), never=st.lists(TRIGGER.filter(bool), max_size=1), files=FILES
)
def test_triggers_agree_with_the_oracle(
    triggers: list[dict[str, list[str]]], never: list[dict[str, list[str]]], files: list[dict[str, str]]
) -> None:
    import yaml

    flow = flow_of(yaml.safe_dump({"triggers": triggers, "never": never}))
    match = match_flow(flow, case_files(*files))
    assert (set(match.files) if match.fires else None) == oracle(triggers, never, files)
    assert len(match.files) == len(set(match.files))

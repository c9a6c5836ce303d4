"""Which object refers to which, by which method, and what is broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from tests.support.catalog_cases import ROOT, write_series
from tests.support.treatment_cases import DOSE, PLAN, Patient, make

from ctenrich.catalog.folder import FolderCatalog, index_folders
from ctenrich.catalog.headers import read_header
from ctenrich.catalog.schema import RADIOTHERAPY_COLUMNS
from ctenrich.errors import UsageError
from ctenrich.reasons import Reason
from ctenrich.treatments.links import link_objects
from ctenrich.treatments.objects import read_objects
from ctenrich.treatments.records import LinkMethod, LinkState, ObjectLink

NOWHERE = "1.3.6.1.4.1.9590.100.1.1.0221051115227574117362"


def links(folder: Path) -> dict[tuple[str, str], ObjectLink]:
    """(modality of the source, of the target) -> link; for objects that have one of each kind."""
    index_folders([folder], folder.parent / "c.duckdb", processes=1)
    catalog = FolderCatalog(folder.parent / "c.duckdb")
    try:
        return {(k.source_modality, k.target_modality): k for k in link_objects(read_objects(catalog))}
    finally:
        catalog.close()


def test_uids_that_resolve_are_followed(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    structures, plan, dose = patient.whole()
    patient.record(plan, 1)
    found = links(tmp_path / "in")
    assert {key: (link.targets, link.method, link.state) for key, link in found.items()} == {
        ("RTSTRUCT", "CT"): ((f"{ROOT}.1.1",), LinkMethod.UID, LinkState.RESOLVED),
        ("RTPLAN", "RTSTRUCT"): ((structures,), LinkMethod.UID, LinkState.RESOLVED),
        ("RTDOSE", "RTPLAN"): ((plan,), LinkMethod.UID, LinkState.RESOLVED),
        ("RTRECORD", "RTPLAN"): ((plan,), LinkMethod.UID, LinkState.RESOLVED),
    }
    assert found["RTDOSE", "RTPLAN"].source == dose


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_uids_that_lead_nowhere_are_replaced_by_frame_of_reference_and_study(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    patient.ct()
    structures = patient.structures(images=None)
    plan = patient.plan(structures=NOWHERE)
    patient.dose("1.2.3.4.5")
    found = links(tmp_path / "in")
    assert {link.method for link in found.values()} == {LinkMethod.FRAME_AND_STUDY}
    assert found["RTPLAN", "RTSTRUCT"].referenced == NOWHERE
    assert found["RTPLAN", "RTSTRUCT"].targets == (structures,)
    assert found["RTDOSE", "RTPLAN"].targets == (plan,)
    assert found["RTSTRUCT", "CT"].targets == (f"{ROOT}.1.1",)


def test_in_another_study_only_the_frame_of_reference_ties(tmp_path: Path) -> None:
    frame = f"{ROOT}.1.99"
    Patient(tmp_path / "in").ct()
    other = Patient(tmp_path / "in", study="5", FrameOfReferenceUID=frame)
    other.structures(images=None, frame=frame)
    found = links(tmp_path / "in")["RTSTRUCT", "CT"]
    assert (found.method, found.targets) == (LinkMethod.FRAME, (f"{ROOT}.1.1",))


def test_an_object_of_another_patient_is_never_found_by_frame_of_reference(tmp_path: Path) -> None:
    Patient(tmp_path / "in", "P1").ct()
    Patient(tmp_path / "in", "P1").plan()
    Patient(tmp_path / "in", "P2", study="2", FrameOfReferenceUID=f"{ROOT}.1.99").dose("1.2.3")
    found = links(tmp_path / "in")["RTDOSE", "RTPLAN"]
    assert (found.state, found.targets, found.method) == (LinkState.BROKEN, (), None)


def test_two_candidates_are_inconclusive_and_both_are_listed(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    patient.ct()
    plans = {patient.plan("A1", 1), patient.plan("A2", 2)}
    patient.dose(None)
    found = links(tmp_path / "in")["RTDOSE", "RTPLAN"]
    assert (found.state, set(found.targets)) == (LinkState.INCONCLUSIVE, plans)


def test_a_uid_beats_the_frame_of_reference(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    patient.ct()
    first = patient.plan("A1", 1)
    patient.plan("A2", 2)
    patient.dose(first)
    assert links(tmp_path / "in")["RTDOSE", "RTPLAN"].targets == (first,)


# ---------------------------------------------------------------- columns of the catalog


def test_the_crawl_keeps_what_plans_and_doses_state(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    _, plan, dose = patient.whole(groups=((35, (0.608, 0.744, 0.608)), (10, (0.07, 0.07))), ApprovalStatus="APPROVED")
    index_folders([tmp_path / "in"], tmp_path / "c.duckdb", processes=1)
    with duckdb.connect(str(tmp_path / "c.duckdb"), read_only=True) as connection:
        row = connection.execute(
            "SELECT FractionGroupSequence, ApprovalStatus, RTPlanLabel FROM dicom_all WHERE SOPInstanceUID = ?", [plan]
        ).fetchone()
        of_dose = connection.execute(
            "SELECT DoseUnits, DoseSummationType, GridFrameOffsetVector, ReferencedRTPlanSequence[1], "
            f"SOPClassUID = '{DOSE}' FROM dicom_all WHERE SOPInstanceUID = ?", [dose],
        ).fetchone()  # fmt: skip
    assert row is not None
    assert of_dose is not None
    assert [(g["NumberOfFractionsPlanned"], [b["BeamDose"] for b in g["ReferencedBeamSequence"]]) for g in row[0]] == [
        ("35", ["0.608", "0.744", "0.608"]), ("10", ["0.07", "0.07"]),
    ]  # fmt: skip
    assert row[1:] == ("APPROVED", "A1")
    assert of_dose[:3] == ("GY", "PLAN", ["0", "3", "6"])
    assert (of_dose[3]["ReferencedSOPClassUID"], of_dose[3]["ReferencedSOPInstanceUID"]) == (PLAN, plan)


def test_images_alone_leave_the_columns_of_radiotherapy_empty(tmp_path: Path) -> None:
    write_series(tmp_path / "in", 2)
    index_folders([tmp_path / "in"], tmp_path / "c.duckdb", processes=1)
    names = ", ".join(f'"{column.name}"' for column in RADIOTHERAPY_COLUMNS)
    with duckdb.connect(str(tmp_path / "c.duckdb"), read_only=True) as connection:
        rows = connection.execute(f"SELECT {names} FROM dicom_all").fetchall()
    assert rows == [tuple([] if column.repeated else None for column in RADIOTHERAPY_COLUMNS)] * 2


@pytest.mark.long
def test_a_catalog_of_an_earlier_version_gets_the_columns_by_another_crawl(tmp_path: Path) -> None:
    patient = Patient(tmp_path / "in")
    patient.whole()
    index_folders([tmp_path / "in"], tmp_path / "c.duckdb", processes=1)
    with duckdb.connect(str(tmp_path / "c.duckdb")) as connection:
        kept = [c.name for c in RADIOTHERAPY_COLUMNS]
        connection.execute("DROP VIEW dicom_all")
        for name in kept:
            connection.execute(f'ALTER TABLE instances DROP COLUMN "{name}"')
        columns = [row[0] for row in connection.execute("DESCRIBE instances").fetchall()]
        names = ", ".join(f'"{c}"' for c in columns if c not in {"local_path", "is_copy"})
        connection.execute(f"CREATE VIEW dicom_all AS SELECT {names} FROM instances")
        connection.execute("UPDATE about SET layout = 2")
    catalog = FolderCatalog(tmp_path / "c.duckdb")
    with pytest.raises(UsageError) as caught:
        read_objects(catalog)
    catalog.close()
    assert caught.value.reason is Reason.MISSING_COLUMN
    assert "index again" in str(caught.value.hint)
    again = index_folders([tmp_path / "in"], tmp_path / "c.duckdb", processes=1)
    assert again.read == 3, "structure set, plan and dose"
    catalog = FolderCatalog(tmp_path / "c.duckdb")
    assert [len(one.content.rois) for one in read_objects(catalog).structure_sets] == [1]  # type: ignore[union-attr]
    catalog.close()


def test_a_plan_that_was_cut_short_is_a_fault_of_the_crawl(tmp_path: Path) -> None:
    from pydicom.data import get_testdata_file

    path = get_testdata_file("rtplan_truncated.dcm")
    assert path is not None
    header = read_header(Path(str(path)))
    assert [reason for reason, _ in header.faults] == [Reason.TRUNCATED]


def test_lung1_002_is_tied_by_frame_of_reference_and_study(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    found = make(real_data("LUNG1-002-RT"), tmp_path / "c.duckdb")
    (treatment,) = found.treatments
    assert treatment.link is LinkMethod.FRAME_AND_STUDY
    plan = treatment.dominant_plan
    assert plan is not None
    assert plan.prescription is not None
    assert (plan.fractions_planned, plan.prescription.dose) == (35, 70.0)
    assert [g.is_treatment for g in plan.groups] == [True, False]
    assert [len(one.rois) for one in treatment.structure_sets] == [16]
    assert [dose.used for dose in treatment.doses] == [True]
    assert [c.modality for c in treatment.series.companions] == ["RTSTRUCT", "RTPLAN", "RTDOSE"]
    assert sum("no UID resolves" in note for note in treatment.notes) == 2

"""Links between the objects of radiotherapy of a large folder catalog: time and largest memory.

``python -m benchmarks.links [--patients 10000] [--slices 97]``. The catalog is generated: each patient has a CT of that
many slices, and a structure set, a plan and a dose. UIDs from plan to structure set and from dose to plan lead nowhere.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

from ctenrich.treatments.exports import load_links

_COMMON = """
    'x' AS collection_id, 'P' || i AS PatientID, '1.2.' || i AS StudyInstanceUID,
    '1.2.' || i || '.9' AS FrameOfReferenceUID, 500000 AS instance_size, false AS is_copy"""
_IMAGES = f"""
INSERT INTO instances BY NAME
SELECT {_COMMON}, 'CT' AS Modality, '1.2.' || i || '.1' AS SeriesInstanceUID,
    '1.2.' || i || '.1.' || k AS SOPInstanceUID,
    'file:///d/' || i || '/' || k AS gcs_url, 'd/' || i || '/' || k AS local_path
FROM range($patients) p(i), range($slices) s(k)"""
_OBJECTS = """
INSERT INTO instances BY NAME
SELECT {common}, '{modality}' AS Modality, '1.2.' || i || '.{number}' AS SeriesInstanceUID,
    '1.2.' || i || '.{number}.1' AS SOPInstanceUID,
    'file:///d/{number}' || i AS gcs_url, 'd/{number}' || i AS local_path, {further}
FROM range($patients) p(i)"""
_STRUCTURES = """
    [{'FrameOfReferenceUID': '1.2.' || i || '.9', 'RTReferencedStudySequence': [
        {'ReferencedSOPClassUID': '', 'ReferencedSOPInstanceUID': '', 'RTReferencedSeriesSequence': [
            {'SeriesInstanceUID': '1.2.' || i || '.1', 'ContourImageSequence': []}]}]}]
        AS ReferencedFrameOfReferenceSequence,
    [{'ROINumber': r::VARCHAR, 'ReferencedFrameOfReferenceUID': '1.2.' || i || '.9', 'ROIName': 'roi ' || r}
        FOR r IN range(20)] AS StructureSetROISequence"""
_PLAN = "[{'ReferencedSOPClassUID': '', 'ReferencedSOPInstanceUID': '9.9.' || i}] AS ReferencedStructureSetSequence"
_DOSE = "'GY' AS DoseUnits, 'PHYSICAL' AS DoseType, 'PLAN' AS DoseSummationType"


def make_catalog(path: Path, patients: int, slices: int) -> None:
    """Write a folder catalog."""
    from ctenrich.catalog import folder

    connection = folder._open(path, read_only=False)
    folder._create(connection)
    connection.execute("SET memory_limit = '1500MB'")
    connection.execute(_IMAGES, {"patients": patients, "slices": slices})
    for number, (modality, further) in enumerate((("RTSTRUCT", _STRUCTURES), ("RTPLAN", _PLAN), ("RTDOSE", _DOSE)), 2):
        question = _OBJECTS.format(common=_COMMON, modality=modality, number=number, further=further)
        connection.execute(question, {"patients": patients})
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=10_000)
    parser.add_argument("--slices", type=int, default=97)
    parser.add_argument("--quick", action="store_true", help="a tenth of the patients")
    given = parser.parse_args()
    patients = given.patients // (10 if given.quick else 1)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "catalog.duckdb"
        maker = multiprocessing.get_context("spawn").Process(target=make_catalog, args=(path, patients, given.slices))
        maker.start()  # in a process of its own: its memory is not that of the links
        maker.join()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.process_time()
        links = load_links(path)
        seconds = time.process_time() - start
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    methods = links["method"].value_counts().to_pylist()
    instances = patients * (given.slices + 3)
    print(f"{instances:,} instances of {patients:,} patients: {links.num_rows:,} links in {seconds:.1f} s of CPU")
    print("  " + ", ".join(f"{one['values']}: {one['counts']:,}" for one in methods))
    print(f"  largest memory {after / 1024:.0f} MB, of which {before / 1024:.0f} MB before the links were read")


if __name__ == "__main__":
    main()

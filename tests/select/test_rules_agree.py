"""The rules in SQL and in Python give one verdict: generated series, and the cases that have to come out right."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.dataset import Dataset
from tests.support.generated_cohorts import TableCatalog, generate, regular
from tests.support.small_series import folder_entry, write_small

from ctenrich.catalog import open_catalog
from ctenrich.catalog.folder import index_folders
from ctenrich.catalog.idc_index import IdcIndexCatalog
from ctenrich.catalog.queries import load_query
from ctenrich.dicom.ct_slice import acquisition_marks
from ctenrich.errors import CtenrichError
from ctenrich.geometry import SliceHeader, check_stack_geometry
from ctenrich.reasons import Reason
from ctenrich.settings import GeometrySettings, Settings
from ctenrich.stages.fetch import fetch_series
from ctenrich.stages.sort import sort_series
from ctenrich.workspace import Workspace

SQL_ONLY = {Reason.UNSAFE_IDENTIFIER, Reason.DECOMPRESSION_BOMB, Reason.MIXED_SERIES}


def verdicts(rows: list[dict[str, Any]], **parameters: object) -> dict[str, tuple[str, ...]]:
    """Failed rules by series, in SQL."""
    catalog = TableCatalog(rows)
    table = catalog.run(load_query("select_ct_series"), parameters).table.select(["SeriesInstanceUID", "failed"])
    catalog.close()
    return {row["SeriesInstanceUID"]: tuple(row["failed"]) for row in table.to_pylist()}


@pytest.mark.parametrize(("seed", "settings"), [(1, GeometrySettings()), (2, GeometrySettings(
    spacing_relative=0.05, spacing_absolute=0.2, line_tolerance=0.3, drift=0.5, cosines=1e-3,
    pixel_spacing_relative=1e-2, minimum_slices=4,
))])  # fmt: skip
def test_a_thousand_series_have_one_verdict(seed: int, settings: GeometrySettings) -> None:
    series = generate(1200, seed)
    names = ("spacing_relative", "spacing_absolute", "line_tolerance", "drift", "cosines", "pixel_spacing_relative",
             "minimum_slices")  # fmt: skip
    parameters = {name: getattr(settings, name) for name in names}
    in_sql = verdicts([{k: v for k, v in row.items() if k != "k"} for s in series for row in s.rows], **parameters)
    wrong = {}
    seen: Counter[str] = Counter()
    for s in series:
        expected = tuple(reason.value for reason in check_stack_geometry(s.headers(), settings).reasons)
        seen.update(expected or ("accepted",))
        if in_sql[s.uid] != expected:
            wrong[f"{s.uid} {s.kind}"] = (in_sql[s.uid], expected)
    assert not wrong
    assert len(in_sql) == len(series)
    # the generator reaches every rule that both sides have
    codes = [r.value for r in Reason]
    wanted = [*codes[: codes.index("NOT_HU") + 1], "HU_RANGE"]
    assert all(seen[reason] >= 3 for reason in wanted if reason != "TOO_FEW_SLICES" or settings.minimum_slices > 2), (
        seen
    )
    assert seen["accepted"] > 100
    assert seen["CONFLICTING_DUPLICATE"] >= 50


def stack(uid: str, heights: list[float] | list[str], **changes: Any) -> list[dict[str, Any]]:
    base = regular(random.Random(0), 0).rows[0]
    rows = []
    for k, z in enumerate(heights):
        row = {**base, "SeriesInstanceUID": uid, "SOPInstanceUID": f"{uid}.{k}"}
        row["ImageOrientationPatient"] = ["1", "0", "0", "0", "1", "0"]
        row["ImagePositionPatient"] = ["-10", "-20", z if isinstance(z, str) else f"{z:.6g}"]
        row.pop("k")
        rows.append(
            {**row, **{name: value[k] if isinstance(value, list) else value for name, value in changes.items()}}
        )
    return rows


def test_a_uniform_stack_across_zero_is_accepted_at_every_offset() -> None:
    rows = [row for i in range(125) for row in stack(f"1.{i}", [-10 + i * 0.01 + k * 1.25 for k in range(20)])]
    found = verdicts(rows)
    assert len(found) == 125
    assert set(found.values()) == {()}
    catalog = TableCatalog([{**row, "collection_id": "nsclc_radiomics"} for row in rows])
    paper = catalog.run(load_query("select_nsclc_radiomics_paper"), {}).table["SeriesInstanceUID"].to_pylist()
    assert 125 - len(set(paper)) == 48, "the published query loses 48 of them"


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([0, 3, 8, 11, 16, 19, 24], ("IRREGULAR_SPACING",)),
        ([0, 2, 5, 7, 10], ("IRREGULAR_SPACING",)),
        ([f"{k * 0.625 - 3.1:.2f}" for k in range(60)], ()),
        ([0, 3, 6, 12, 15], ("MISSING_SLICE",)),
        ([0, 2.5, 5, 9.9, 12.4], ("IRREGULAR_SPACING",)),
        ([0, 0, 0], ("ZERO_SPACING", "DUPLICATE_POSITION")),
        ([0, 3, 3, 6], ("DUPLICATE_POSITION", "IRREGULAR_SPACING")),
        ([5], ("ONE_SLICE",)),
    ],
)
def test_cases_that_have_to_come_out_right(heights: list[Any], expected: tuple[str, ...]) -> None:
    assert verdicts(stack("1.1", heights)) == {"1.1": expected}


def test_orientation_is_compared_as_numbers() -> None:
    spelled: list[Any] = [
        ["1", "0", "0", "0", "1", "0"],
        ["1.0", "0.0", "0", "0", "1.000", "-0"],
        ["1e0", "0", "0", "0", "1", "0"],
    ]
    assert verdicts(stack("1.1", [0, 3, 6], ImageOrientationPatient=spelled)) == {"1.1": ()}
    turned: list[Any] = [*spelled[:2], ["0.9999985", "0.0017453", "0", "-0.0017453", "0.9999985", "0"]]
    assert verdicts(stack("1.1", [0, 3, 6], ImageOrientationPatient=turned)) == {"1.1": ("MULTI_ORIENTATION",)}


def test_two_phases_in_one_series_are_refused() -> None:
    rows = stack("1.1", [0, 3, 6, 9]) + [
        {**row, "SOPInstanceUID": row["SOPInstanceUID"] + ".5"} for row in stack("1.1", [0, 3, 6, 9])
    ]
    assert verdicts(rows)["1.1"][0] == "DUPLICATE_POSITION"


def test_a_query_names_the_attribute_and_its_values() -> None:
    heights: list[float] = [0, 3, 6, 9, 12, 15]
    clock = [dt.time(12, 0, 0), dt.time(12, 5, 0)] * 3
    rows = [
        *stack("1.1", heights, ConvolutionKernel=[["B30f"], ["B70f"]] * 3),
        *stack("1.2", heights, AcquisitionTime=clock),
        *stack("1.3", heights, AcquisitionTime=sorted(clock), AcquisitionNumber=["1", "1", "2", "2", "3", "3"]),
        *stack("1.4", heights, RescaleType="Z_EFF"),
        *stack("1.5", heights, ContrastBolusAgent=[None, "Ultravist"] * 3, KVP=["80", "140"] * 3),
    ]
    catalog = TableCatalog(rows)
    table = catalog.run(load_query("select_ct_series"), {}).table.select(["SeriesInstanceUID", "failed", "detail"])
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ("1.1", ["MIXED_ACQUISITIONS"], "ConvolutionKernel: B30F ... B70F"),
        ("1.2", ["MIXED_ACQUISITIONS"], "AcquisitionTime: 12:00:00 ... 12:05:00"),
        ("1.3", [], None),
        ("1.4", ["NOT_HU"], "RescaleType: Z_EFF"),
        ("1.5", ["MIXED_ACQUISITIONS"], "ContrastBolusAgent:  ... ULTRAVIST; KVP: 140 ... 80"),
    ]
    assert verdicts(stack("1.4", heights, RescaleType="Z_EFF"), allow_not_hu=True) == {"1.4": ()}


def test_what_only_a_table_can_show() -> None:
    twice = stack("1.1", [0, 3, 6]) + stack("1.1", [9])
    mixed = stack("1.2", [0, 3, 6], StudyInstanceUID=["1.5", "1.5", "1.6"])
    unsafe = stack("../x", [0, 3, 6])
    zeros = stack("1.03", [0, 3, 6])
    patients = [
        row
        for n, patient in enumerate(["SITE\\7", "7" * 81, "7" * 64])
        for row in stack(f"1.{n + 5}", [0, 3, 6], PatientID=patient)
    ]
    studies = [
        *stack("1.10", [0, 3, 6], StudyID=["7" * 16, "7" * 16, "7" * 17]),
        *stack("1.11", [0, 3, 6], AccessionNumber="A\\B"),
        *stack("1.12", [0, 3, 6], AccessionNumber="A\tB"),
        *stack("1.13", [0, 3, 6], StudyID="\ufffd1"),
        *stack("1.14", [0, 3, 6], StudyID="\u3000123 ", AccessionNumber="7" * 16 + " ", PatientID="\u3000\u00e9"),
    ]
    large = stack("1.9", [float(z) for z in range(20)], Rows=16384, Columns=16384)
    assert verdicts(twice + mixed + unsafe + zeros + patients + studies + large) == {
        **dict.fromkeys(("1.10", "1.11", "1.12", "1.13"), ("UNSAFE_IDENTIFIER",)), "1.14": (),
        "1.03": ("UNSAFE_IDENTIFIER",), "1.5": ("UNSAFE_IDENTIFIER",), "1.6": ("UNSAFE_IDENTIFIER",), "1.7": (),
        "1.9": ("DECOMPRESSION_BOMB",),
        "1.1": ("CONFLICTING_DUPLICATE",), "1.2": ("MIXED_SERIES",), "../x": ("UNSAFE_IDENTIFIER",),
    }  # fmt: skip


def test_an_instance_that_a_filter_leaves_out_gives_its_series_a_reason() -> None:
    """Each series is a regular stack without its last slice, which the filters on modality or patient do not pass."""
    others = {"1.1": "MR", "1.2": "OT", "1.3": "RTSTRUCT", "1.4": None, "1.5": "", "1.6": "ct"}
    rows = [
        row
        for uid, other in others.items()
        for row in stack(uid, [0.0, 3.0, 6.0, 9.0], PatientID="A", Modality=["CT", "CT", "CT", other])
    ]
    rows += stack("1.7", [0, 3, 6, 9], PatientID=["A", "A", "A", "B"])
    rows += stack("1.8", [0, 3, 6, 9], PatientID=["A", "A", "A", None])
    rows += stack("1.9", [0, 3, 6, 9], PatientID="A") + stack("2.1", [0, 3, 6], PatientID="A", Modality="MR")
    rows += stack("2.2", [0, 3, 6], PatientID="B")
    expected: dict[str, tuple[str, ...]] = dict.fromkeys(others, ("NOT_CT",))
    expected |= {"1.7": ("MIXED_SERIES",), "1.8": ("MIXED_SERIES",), "1.9": ()}
    assert verdicts(rows, patients=["A"]) == expected
    assert verdicts(rows) == {**expected, "2.2": ()}
    catalog = TableCatalog(rows)
    table = catalog.run(load_query("select_ct_series"), {}).table
    details = dict(zip(table["SeriesInstanceUID"].to_pylist(), table["detail"].to_pylist(), strict=True))
    catalog.close()
    assert [details[uid] for uid in others] == [f"Modality: {m or '(none)'}" for m in others.values()]
    for other in others.values():  # the stage sort sees all files, and says the same
        headers = [SliceHeader(f"1.{k}", modality=(other or "") if k == 3 else "CT") for k in range(4)]
        assert check_stack_geometry(headers, GeometrySettings()).reasons[0] is Reason.NOT_CT


@pytest.mark.data
@pytest.mark.parametrize(
    "archive", ["LUNG1-005", "LUNG1-001", "LUNG1-002-RT", "4D-Lung-113", "awkward", "totalseg", "ibsi", "ref_objects"]
)
def test_real_series_have_one_verdict(tmp_path: Path, real_data: Callable[[str], Path], archive: str) -> None:
    folder = real_data(archive)
    index_folders([folder], tmp_path / "c.duckdb", processes=1)
    catalog = open_catalog(f"folder:{tmp_path / 'c.duckdb'}")
    found = catalog.run(load_query("select_ct_series"), {}).table.select(["SeriesInstanceUID", "failed"]).to_pylist()
    headers: dict[str, dict[str, SliceHeader]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            ds = pydicom.dcmread(path, stop_before_pixels=True)
        except pydicom.errors.InvalidDicomError:
            continue
        uid = str(ds.get("SOPInstanceUID") or path)
        headers.setdefault(str(ds.get("SeriesInstanceUID") or ""), {})[uid] = slice_header(ds)
    kinds = {uid: {h.modality for h in of_series.values()} for uid, of_series in headers.items()}
    assert len(found) == sum("CT" in kind for kind in kinds.values())
    for row in found:
        uid = row["SeriesInstanceUID"]
        expected = list(check_stack_geometry(list(headers[uid].values()), GeometrySettings()).reasons)
        in_sql = [r for r in row["failed"] if Reason(r) not in SQL_ONLY]
        if kinds[uid] == {"CT"} or not uid:
            assert in_sql == expected, uid
        else:  # SQL judges the geometry of the CT instances alone
            assert in_sql[0] == expected[0] == Reason.NOT_CT, uid


def slice_header(ds: pydicom.Dataset) -> SliceHeader:
    def numbers(name: str) -> tuple[float, ...] | None:
        value = ds.get(name)
        return None if value is None else tuple(float(v) for v in value)

    def words(name: str) -> str:
        value = ds.get(name)
        return "" if value is None else str(value)

    image_type = ds.get("ImageType") or ()
    return SliceHeader(
        sop_instance_uid=str(ds.get("SOPInstanceUID", "")),
        sop_class_uid=str(ds.get("SOPClassUID", "")),
        modality=words("Modality"),
        image_type=(image_type,) if isinstance(image_type, str) else tuple(image_type),
        position=numbers("ImagePositionPatient"),
        orientation=numbers("ImageOrientationPatient"),
        pixel_spacing=numbers("PixelSpacing"),
        rows=ds.get("Rows"),
        columns=ds.get("Columns"),
        number_of_frames=int(ds.get("NumberOfFrames", 1)),
        frame_of_reference_uid=str(ds.get("FrameOfReferenceUID", "")),
        rescale=(words("RescaleSlope"), words("RescaleIntercept"), words("RescaleType")),
        marks=acquisition_marks(ds),
    )


CT, CAPTURE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"
ENHANCED, LEGACY = f"{CT}.1", f"{CT}.2"
SAID = [
    (CT, "ORIGINAL\\PRIMARY\\AXIAL"), (CT, "ORIGINAL\\PRIMARY\\LOCALIZER"), (CT, "DERIVED\\SECONDARY\\SCOUT"),
    (CT, "ORIGINAL\\PRIMARY\\ topogram "), (CT, "ORIGINAL\\PRIMARY\\NOLOCALIZER"), (CT, "DERIVED\\PRIMARY\\AXIAL"),
    (CT, "DERIVED\\SECONDARY\\REFORMATTED"), (CT, "derived\\primary\\mpr"), (CT, "DERIVED\\PRIMARY\\AXIAL\\CT_MPR"),
    (CT, "DERIVED\\PRIMARY\\PROJECTION IMAGE"), (CT, "ORIGINAL\\PRIMARY\\MPR"), (CT, "DERIVED\\PRIMARY\\IMPROVED"),
    (CT, "DERIVED\\PRIMARY\\UNREFORMATTED"),
    (CT, "DERIVED\\SECONDARY\\AXIAL\\CT_SOM5 MIP"), (CT, "DERIVED\\PRIMARY\\VOLUME\\MAX_IP"),
    (CT, "DERIVED\\PRIMARY\\AXIAL\\MINIP"), (CT, "DERIVED\\SECONDARY\\AXIAL\\SUBTRACT"),
    (CT, "DERIVED\\SECONDARY\\VRT"), (CT, "DERIVED\\PRIMARY\\VOLUME_RENDER"), (CT, "DERIVED\\SECONDARY\\FUSED"),
    (CT, "DERIVED\\PRIMARY\\AXIAL\\AVERAGE"), (CT, "DERIVED\\PRIMARY\\AXIAL\\IODINE"),
    (CT, "ORIGINAL\\PRIMARY\\AXIAL\\EFF_ATOMIC_NUM"), (CT, "ORIGINAL\\PRIMARY\\AXIAL\\IODINATED"),
    (CT, "DERIVED\\SECONDARY\\AXIAL\\TMIP"), (CT, "DERIVED\\PRIMARY\\RAY SUM"), (CT, "DERIVED\\PRIMARY\\BONE REMOVED"),
    (CT, "DERIVED\\PRIMARY\\SUBSET"), (CT, "DERIVED\\PRIMARY\\AXIAL\\CBF"), (CT, "ORIGINAL\\PRIMARY\\RHOZ"),
    (CT, "DERIVED\\PRIMARY\\AXIAL\\EFFZ"), (CT, "DERIVED\\PRIMARY\\AXIAL\\THORAX"),
    (CT, "DERIVEDISH\\PRIMARY\\MPR"), (CT, "DERIVED"), (CT, ""), (ENHANCED, "ORIGINAL\\PRIMARY\\VOLUME"),
    (LEGACY, "ORIGINAL\\PRIMARY\\VOLUME"), (CAPTURE, "ORIGINAL\\PRIMARY\\AXIAL"),
]  # fmt: skip


def test_the_query_of_the_series_index_reads_what_a_series_says_as_the_others_do(tmp_path: Path) -> None:
    heads = {f"1.7.{n}": said for n, said in enumerate(SAID)}
    rows = [
        row
        for uid, (sop_class, kind) in heads.items()
        for row in stack(uid, [0.0, 3.0, 6.0], SOPClassUID=sop_class, ImageType=[kind.split("\\") if kind else []] * 3)
    ]
    base = {"collection_id": "c", "analysis_result_id": None, "PatientID": "P", "StudyInstanceUID": "1.9",
            "source_DOI": "d", "Modality": "CT", "Manufacturer": "ACME", "instanceCount": 3, "license_short_name": "CC",
            "crdc_series_uuid": "u", "series_aws_url": "s3://b/u/*", "series_size_MB": 1.5}  # fmt: skip
    index = [{**base, "SeriesInstanceUID": uid, "SOPClassUID": said[0]} for uid, said in heads.items()]
    types = [
        {"SeriesInstanceUID": uid, "ImageType": said[1].split("\\"), "SliceThickness": 3.0}
        for uid, said in heads.items()
    ]
    pq.write_table(pa.Table.from_pylist(index), tmp_path / "idc_index.parquet")
    pq.write_table(pa.Table.from_pylist(types), tmp_path / "ct_index.parquet")
    catalog = IdcIndexCatalog(tmp_path)
    table = catalog.run(load_query("select_idc_series"), {}).table.select(["SeriesInstanceUID", "failed"])
    of_series = {row["SeriesInstanceUID"]: row["failed"] for row in table.to_pylist()}
    of_slices = verdicts(rows)
    rules = {"NOT_CT", "LOCALIZER", "DERIVED_REFORMATTED", "MULTIFRAME", "NOT_HU"}
    for uid, said in heads.items():
        assert [r for r in of_series[uid] if r in rules] == [r for r in of_slices[uid] if r in rules], said
    assert rules <= {r for failed in of_series.values() for r in failed}, "each rule has a series that fails it"


# ---------------------------------------------------------------- files: what the crawl and the stage sort read


def _kernels_alternate(data: Dataset, k: int) -> None:
    data.ConvolutionKernel = "B30f" if k % 2 else "B70f"


def _kernels_follow(data: Dataset, k: int) -> None:
    data.ConvolutionKernel = "B30f" if k < 3 else "B70f"


def _times_alternate(data: Dataset, k: int) -> None:
    data.AcquisitionTime = f"12{k % 2:02d}00"


def _phases(data: Dataset, k: int) -> None:
    data.TemporalPositionIdentifier = 1 + k % 2


def _map(data: Dataset, _: int) -> None:
    data.RescaleType = "MGML"


def _gap(data: Dataset, k: int) -> None:
    if k == 5:
        x, y, z = data.ImagePositionPatient
        data.ImagePositionPatient = [x, y, float(z) + 2.5]


def _one_of_another_modality(data: Dataset, k: int) -> None:
    if k == 5:
        data.Modality = "MR"


def _long_study_id(data: Dataset, k: int) -> None:
    if k == 3:
        data.StudyID = "7" * 17


def _without_frame(data: Dataset, _: int) -> None:
    del data.FrameOfReferenceUID


EDITS = (
    _kernels_alternate, _kernels_follow, _times_alternate, _phases, _map, _gap, _without_frame,
    _one_of_another_modality, _long_study_id,
)  # fmt: skip


def _bare(path: Path) -> None:
    path.write_bytes(path.read_bytes()[132:])


def _prefix_alone(path: Path) -> None:
    path.write_bytes(path.read_bytes()[128:])


def _misstated(path: Path) -> None:
    data = path.read_bytes()
    explicit, implicit = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"
    path.write_bytes(data.replace(explicit, implicit, 1))


def _padded(path: Path) -> None:
    data = path.read_bytes()
    place = data.rindex(b"\xe0\x7f\x10\x00OW") + 8
    length = int.from_bytes(data[place : place + 4], "little")
    path.write_bytes(data[:place] + (length + 64).to_bytes(4, "little") + data[place + 4 :] + bytes(64))


def _resent(path: Path) -> None:
    path.with_suffix(".copy").write_bytes(path.read_bytes())


def _resent_with_another_date(path: Path) -> None:
    ds = pydicom.dcmread(path, force=True)
    ds.InstanceCreationDate = "20260101"
    ds.save_as(path.with_suffix(".copy"))


def _resent_with_other_pixels(path: Path) -> None:
    ds = pydicom.dcmread(path, force=True)
    ds.PixelData = bytes(len(ds.PixelData))
    ds.save_as(path.with_suffix(".copy"))


ODD = (_bare, _prefix_alone, _misstated, _padded)
COPIES = (_resent, _resent_with_another_date, _resent_with_other_pixels)


def test_odd_files_copies_and_mixed_acquisitions_have_one_verdict(tmp_path: Path) -> None:
    """Of series with one to three oddities each, the crawl's query and the stage sort accept and refuse the same."""
    dice = random.Random(7)
    folders = {}
    for n in range(24):
        uid, folder = f"1.2.3.9.{n + 1}", tmp_path / "in" / f"s{n}"
        edits = dice.sample(EDITS, dice.choice((0, 0, 1, 1, 2)))

        def edit(data: Dataset, k: int, uid: str = uid, edits: Sequence[Any] = edits) -> None:
            data.SeriesInstanceUID, data.SOPInstanceUID, data.RescaleType = uid, f"{uid}.{k + 1}", "HU"
            for one in edits:
                one(data, k)

        paths = write_small(folder, edit=edit)
        for change in dice.sample(COPIES, dice.choice((0, 0, 1))):
            change(dice.choice(paths))
        for change in dice.sample(ODD, dice.choice((0, 1, 2))):
            change(paths.pop(dice.randrange(len(paths))))
        folders[uid] = folder
    index_folders([tmp_path / "in"], tmp_path / "c.duckdb", processes=1)
    catalog = open_catalog(f"folder:{tmp_path / 'c.duckdb'}")
    found = catalog.run(load_query("select_ct_series"), {}).table.select(["SeriesInstanceUID", "failed"]).to_pylist()
    in_sql = {row["SeriesInstanceUID"]: row["failed"] or ["accepted"] for row in found}
    in_python = {uid: verdict_of_sort(uid, folder, tmp_path / "run") for uid, folder in folders.items()}
    assert in_sql.keys() == in_python.keys()
    for uid, verdict in in_python.items():  # sort ends at two images of one UID, before the rules of geometry
        assert verdict == in_sql[uid][0] or (verdict == "CONFLICTING_DUPLICATE" and verdict in in_sql[uid]), uid
    seen = Counter(in_python.values())
    wanted = {
        "accepted", "MIXED_ACQUISITIONS", "CONFLICTING_DUPLICATE", "NOT_HU", "MISSING_FRAME_OF_REFERENCE", "NOT_CT",
        "UNSAFE_IDENTIFIER",
    }  # fmt: skip
    assert wanted <= seen.keys(), seen


def verdict_of_sort(uid: str, folder: Path, run: Path) -> str:
    entry, workspace = folder_entry(folder, series_instance_uid=uid), Workspace(run)
    try:
        sort_series(
            fetch_series(entry, settings=Settings(), workspace=workspace), settings=Settings(), workspace=workspace
        )
    except CtenrichError as error:
        return error.reason.value
    return "accepted"

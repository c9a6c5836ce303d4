"""A run made by hand: records, masks, objects and ledger of series that look like the real thing."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from ctenrich.ledger.ledger import Ledger
from ctenrich.ledger.rows import ProductKey, StageTiming
from ctenrich.masks import masks_from_label_map
from ctenrich.reasons import Reason
from ctenrich.records import (
    Check,
    EncodedObject,
    EncodedObjects,
    Issue,
    Landmark,
    Landmarks,
    ModelInfo,
    ObjectKind,
    Outcome,
    Product,
    ProductKind,
    Proof,
    Regions,
    SegmentMasks,
    Severity,
    Slice,
    SliceRegions,
    SliceScores,
    SortedSeries,
    State,
    Volume,
)
from ctenrich.results.tables import build_tables
from ctenrich.workspace import Workspace, save_array, save_record, sha256_of_array, sha256_of_file
from tests.support.result_reports import (
    MM3,
    SITE,
    coded,
    group,
    head,
    number,
    reference,
    segment_links,
    write_seg,
    write_sr,
)

ORGANS = ((1, "heart", ("80891009", "SCT", "Heart")), (2, "aorta", ("15825003", "SCT", "Aorta")))
FEATURES = (("RNU0", "IBSI", "Volume (mesh)"), ("QCFX", "IBSI", "Sphericity"))
NETWORK = Product(ProductKind.NNUNET, "test-organs", "3d_fullres", ("0",), mirror=False)
SCORER = Product(ProductKind.BODYPART, "test-bodypart")
SLICES = 40


def uid_of(number: int) -> str:
    return f"1.2.826.0.1.3680043.10.1511.{number}"


def make_run(root: Path, series: int = 3, *, pictures: int | None = None, broken: int = 0, text: str = "") -> Workspace:
    """Write a run of `series` series (volumes and masks for the first `pictures`) and build its tables.

    The last `broken` series failed; `text` goes into the free texts of objects and ledger.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        return _make_run(Workspace(root), series, series if pictures is None else pictures, broken, text)


def _make_run(workspace: Workspace, series: int, pictures: int, broken: int, text: str) -> Workspace:
    dice = random.Random(7)
    ledger: list[tuple[str, ...]] = []
    for index in range(series):
        uid = uid_of(index)
        if index >= series - broken:
            ledger.append((uid, "", "failed", "sort", "MISSING_SLICE", f"a gap of 6 mm {text}"))
            continue
        slices = _sorted(workspace, uid)
        if index < pictures:
            _volume_and_masks(workspace, uid, index)
        _network(workspace, uid, dice, text, outlier=index == series // 2)
        _scores(workspace, uid, slices, dice)
        ledger += [(uid, p, "done", "validate", "", "") for p in ("", str(NETWORK), str(SCORER))]
    _ledger(workspace.root / "ledger.sqlite", ledger, dice, text)
    build_tables(workspace)
    return workspace


def _sorted(workspace: Workspace, uid: str) -> SortedSeries:
    slices = tuple(
        Slice(f"{uid}.{k + 1}", "1.2.840.10008.5.1.4.1.1.2", f"{k}.dcm", (-100.0, -80.0, -60.0 + 8 * k), 8.0 * k)
        for k in range(SLICES)
    )
    record = SortedSeries(
        f"{uid}.9", uid, f"{uid}.8", slices, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (2.5, 2.5), 8.0, 64, 80
    )
    save_record(workspace.series_dir(uid) / "sorted.json", record)
    return record


def body(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A chest made of ellipsoids, HU, and its label map (heart 1 on the patient's left, aorta 2)."""
    k, j, i = np.mgrid[0:SLICES, 0:64, 0:80].astype(np.float32)
    hu = np.full((SLICES, 64, 80), -1000, np.int16)
    hu[((j - 32) / 24) ** 2 + ((i - 40) / 34) ** 2 < 1] = 40
    for centre in (24, 56):
        hu[((j - 32) / 15) ** 2 + ((i - centre) / 11) ** 2 + ((k - 22) / 15) ** 2 < 1] = -850
    hu[((j - 50) / 4) ** 2 + ((i - 40) / 5) ** 2 < 1] = 700
    labels = np.zeros(hu.shape, np.uint8)
    labels[((j - 26) / 8) ** 2 + ((i - 46) / 9) ** 2 + ((k - 15 - index % 3) / 7) ** 2 < 1] = 1
    labels[(((j - 44) / 3) ** 2 + ((i - 44) / 3) ** 2 < 1) & (k > 5) & (k < 30)] = 2
    hu[labels > 0] = 60
    return hu, labels


def _volume_and_masks(workspace: Workspace, uid: str, index: int) -> None:
    hu, labels = body(index)
    path = workspace.series_dir(uid) / "volume" / "ct.npy"
    save_array(path, hu)
    affine = ((2.5, 0.0, 0.0, -100.0), (0.0, 2.5, 0.0, -80.0), (0.0, 0.0, 8.0, -60.0), (0.0, 0.0, 0.0, 1.0))
    shape = (SLICES, 64, 80)
    volume = Volume(uid, workspace.relative(uid, path), shape, affine, (8.0, 2.5, 2.5), f"{uid}.8", sha256_of_array(hu))
    save_record(workspace.series_dir(uid) / "volume.json", volume)
    folder = workspace.product_dir(uid, NETWORK)
    model = ModelInfo("test-organs", "1", "ab" * 32, licence="CC0", demo=True)
    template = SegmentMasks(NETWORK, uid, shape, (), None, "", model)
    names = [(1, "heart", "heart"), (2, "aorta", "aorta"), (3, "trachea", "trachea")]
    masks = masks_from_label_map(labels, names, template, folder / "masks" / "labels.npy", workspace)
    save_record(folder / "masks.json", masks)


def _network(workspace: Workspace, uid: str, dice: random.Random, text: str, *, outlier: bool) -> None:
    folder = workspace.product_dir(uid, NETWORK)
    seg = write_seg(
        folder / "objects" / "seg.dcm", f"{uid}.4", PatientName=f"Doe^{text}", SeriesDescription=f"S {text}"
    )
    groups = []
    for segment, name, site in ORGANS:
        values = (dice.gauss(600_000, 40_000), dice.gauss(0.7, 0.01) - (0.25 if outlier else 0))
        items = [number(f, f"{v:.6f}", MM3) for f, v in zip(FEATURES, values, strict=True)]
        groups.append(group(*head(name), coded(SITE, site), *segment_links(f"{uid}.4", uid, segment), *items))
    shape = write_sr(folder / "objects" / "shape_sr.dcm", f"{uid}.6", groups, SeriesDescription=f"M {text}")
    save_objects(workspace, uid, NETWORK, {ObjectKind.SEG: seg, ObjectKind.SHAPE_SR: shape})
    checks = (Check("voxels", True, "12,345 equal"), Check("references", True, f"40 of 40 {text}"))
    save_record(folder / "proof.json", Proof(str(NETWORK), checks))


def _scores(workspace: Workspace, uid: str, slices: SortedSeries, dice: random.Random) -> None:
    folder = workspace.product_dir(uid, SCORER)
    uids = slices.sop_instance_uids
    scores = tuple(35 + 1.0 * k for k in range(SLICES))
    model = ModelInfo("test-bodypart", "1", "cd" * 32, licence="CC0")
    record = SliceScores(
        SCORER, uid, uids, tuple(8.0 * k for k in range(SLICES)), scores, scores, 0.125, 0.118, 1.0, True, False, 8.0,
        8.0, True, {"lung_start": (44.1, 4.4)}, model,
    )  # fmt: skip
    save_record(folder / "scores.json", record)
    start, end = dice.randint(8, 10), dice.randint(36, 38)
    items = [
        Landmark(name, score, k, uids[k], 8.0 * k, 0.0, 0.9)
        for name, score, k in (("lung_start", 44.1, start), ("Th8", 56.9, 21), ("lung_end", 75.4, end))
    ]
    items.append(Landmark("C2", 87.2, absent_reason="above the scan"))
    save_record(folder / "landmarks.json", Landmarks(SCORER, uid, tuple(items)))
    parts = tuple(SliceRegions(k, uids[k], scores[k], _regions(k)) for k in range(SLICES))
    save_record(folder / "regions.json", Regions(SCORER, uid, parts, "CHEST-ABDOMEN"))
    codes = {"abdomen": ("818981001", "SCT", "Abdomen"), "chest": ("816094009", "SCT", "Chest")}
    groups = []
    for part in parts:
        image = reference(("260753009", "SCT", "Source"), "1.2.840.10008.5.1.4.1.1.2", part.sop_instance_uid)
        sites = [coded(SITE, codes[name]) for name in part.regions]
        groups.append(group(*head(f"slice {part.slice_index}"), image, *sites))
    path = write_sr(folder / "objects" / "regions_sr.dcm", f"{uid}.7", groups)
    save_objects(workspace, uid, SCORER, {ObjectKind.REGIONS_SR: path})


def _regions(k: int) -> tuple[str, ...]:
    return tuple(name for name, inside in (("abdomen", k < 20), ("chest", k > 9)) if inside)


def save_objects(workspace: Workspace, uid: str, product: Product, files: dict[ObjectKind, Path]) -> None:
    """The record of a product's written files."""
    import pydicom

    objects = []
    for kind, path in files.items():
        data = pydicom.dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"])
        objects.append(
            EncodedObject(
                kind, workspace.relative(uid, path), data.SOPClassUID, data.SOPInstanceUID, data.SeriesInstanceUID,
                sha256_of_file(path),
            )
        )  # fmt: skip
    record = EncodedObjects(product, uid, tuple(objects))
    save_record(workspace.product_dir(uid, product) / "objects.json", record)


def _ledger(path: Path, rows: list[tuple[str, ...]], dice: random.Random, text: str) -> None:
    with Ledger(path) as ledger:
        ledger.set_plan([(uid, product) for uid, product, *_ in rows])
        issue = Issue("series_description", Severity.WARNING, "1.2.3", f"repaired {text}", "ctenrich", "0.1")
        ledger.set_issues(ProductKey(rows[0][0], str(NETWORK)), "validate", [issue])
        ledger.start_run(f"ctenrich run {text}", "0.1.0", "serial")
        ledger.record(
            *(
                Outcome(uid, product, State(state), stage, Reason(reason) if reason else None, message, 1.0, 1000)
                for uid, product, state, stage, reason, message in rows
            )
        )
        ledger.add_timings(
            *(
                StageTiming(
                    series_instance_uid=uid, product=product, stage=stage, seconds=dice.uniform(1, 3), cpu_seconds=1.0,
                    peak_memory=200_000_000, worker="w",
                )
                for uid, product, _, stage, *_ in rows
            )
        )  # fmt: skip

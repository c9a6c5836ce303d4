"""What a made run lacks: contours beside the network, and a landmarks SR; for questions that need either."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ctenrich.evaluate.doses import write_dose_tables
from ctenrich.masks import masks_from_label_map
from ctenrich.records import (
    DoseMeasurements,
    DoseValue,
    Landmark,
    Landmarks,
    ObjectKind,
    Product,
    ProductKind,
    SegmentDoses,
    SegmentMasks,
)
from ctenrich.results.tables import build_tables
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace, load_record, save_record
from tests.support.report_runs import FEATURES, NETWORK, ORGANS, SCORER, body, save_objects, uid_of
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

EXPERT = Product(ProductKind.EXPERT)
SPHERICITY = {"heart": "0.65", "aorta": "0.8"}
"""Of the contours."""
CODES = {
    "Th7": ("62487009", "SCT", "T7 vertebra"),
    "Th8": ("11068009", "SCT", "T8 vertebra"),
    "lung_start": ("39607008", "SCT", "Lung"),
    "lung_end": ("39607008", "SCT", "Lung"),
}
PARTS = {
    "Th7": ("111010", "DCM", "Center"),
    "Th8": ("111010", "DCM", "Center"),
    "lung_start": ("421610009", "SCT", "Bottom"),
    "lung_end": ("421812003", "SCT", "Top"),
}


def add_contours(run: Workspace) -> None:
    """The first series has contours of heart and aorta, one voxel towards the patient's left, with their numbers."""
    uid = uid_of(0)
    folder = run.product_dir(uid, EXPERT)
    network = load_record(run.product_dir(uid, NETWORK) / "masks.json", SegmentMasks)
    template = replace(network, product=EXPERT, segments=(), label_map_path=None, sha256="", model=None)
    names = [(1, "heart", "Heart"), (2, "aorta", "Aorta")]
    moved = np.roll(body(0)[1], 1, axis=2)
    save_record(folder / "masks.json", masks_from_label_map(moved, names, template, folder / "masks" / "m.npy", run))
    seg = write_seg(folder / "objects" / "seg.dcm", f"{uid}.14")
    groups = []
    for segment, name, site in ORGANS:
        values = ("500000", SPHERICITY[name])
        items = [number(f, v, MM3) for f, v in zip(FEATURES, values, strict=True)]
        groups.append(group(*head(name), coded(SITE, site), *segment_links(f"{uid}.14", uid, segment), *items))
    shape = write_sr(folder / "objects" / "shape_sr.dcm", f"{uid}.16", groups, SeriesDescription="Contour shapes")
    save_objects(run, uid, EXPERT, {ObjectKind.SEG: seg, ObjectKind.SHAPE_SR: shape})


def add_landmarks(run: Workspace, series: int) -> None:
    """The first of `series` series shows Th7 as well (24 mm above Th8) and has its landmarks as an SR."""
    for index in range(series):
        uid = uid_of(index)
        path = run.product_dir(uid, SCORER) / "landmarks.json"
        record = load_record(path, Landmarks)
        found = Landmark("Th7", 60.1, 24, f"{uid}.25", 192.0, 0.0, 0.9)
        extra = found if index == 0 else Landmark("Th7", 60.1, absent_reason="above the scan")
        save_record(path, replace(record, items=(*record.items, extra)))
    uid = uid_of(0)
    folder = run.product_dir(uid, SCORER)
    groups = []
    for item in load_record(folder / "landmarks.json", Landmarks).items:
        if item.sop_instance_uid is not None:
            part = coded(("106233006", "SCT", "Topographical modifier"), PARTS[item.name])
            image = reference(("260753009", "SCT", "Source"), "1.2.840.10008.5.1.4.1.1.2", item.sop_instance_uid)
            groups.append(group(*head(item.name), image, coded(SITE, CODES[item.name], part)))
    path = write_sr(folder / "objects" / "landmarks_sr.dcm", f"{uid}.17", groups, SeriesDescription="Landmarks")
    regions = folder / "objects" / "regions_sr.dcm"
    save_objects(run, uid, SCORER, {ObjectKind.LANDMARKS_SR: path, ObjectKind.REGIONS_SR: regions})


def add_doses(run: Workspace) -> None:
    """Mean doses of the heart of the first series, of the contours and of the network."""
    for product, mean in ((EXPERT, 12.0), (NETWORK, 13.0)):
        value = DoseValue(metric="Mean[Gy]", unit="Gy", value=mean)
        heart = SegmentDoses(number=1, name="heart", coverage=1.0, samples=9, step=(1.0, 1.0, 1.0), values=(value,))
        doses = DoseMeasurements(product=product, series_instance_uid=uid_of(0), segments=(heart,))
        SeriesStore(run).save(doses, uid_of(0), product)
    write_dose_tables(run)


def add_more(run: Workspace, series: int) -> Workspace:
    """Both, the tables built again, and doses of the heart of the first series."""
    add_contours(run)
    add_landmarks(run, series)
    build_tables(run)
    add_doses(run)
    return run

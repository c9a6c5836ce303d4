"""Objects before their export: found in a run or in folders, each with the folder that its files go to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pydicom.uid import UID

from ctenrich.dicom.references import read_object_header
from ctenrich.dicom.sop_classes import LABEL_MAP_SEGMENTATION, MEDIA_STORAGE_DIRECTORY, SEGMENTATION_CLASSES
from ctenrich.errors import CtenrichError, InputError
from ctenrich.reasons import Reason
from ctenrich.records import Product, SegmentMasks
from ctenrich.series_store import SeriesStore
from ctenrich.workspace import Workspace, check_uid, input_files

__all__ = ["PlannedObject", "objects_of_files", "objects_of_run"]


@dataclass(frozen=True, kw_only=True)
class PlannedObject:
    """An object before its export: its file, the folder it goes to, and why it cannot be read, if so."""

    path: Path
    name: str
    target: Path
    """Folder below the output folder."""
    series: str = ""
    product: str = ""
    segments: Mapping[int, str] = field(default_factory=dict)
    """Segment number -> key of mappings/segments.csv, of a product of a run."""
    sop_class: str = ""
    sop_instance_uid: str = ""
    source_series: str = ""
    referenced: frozenset[str] = frozenset()
    fault: CtenrichError | None = None
    withheld: bool = False
    """Whether the export is of accepted products only, and no reviewer has accepted this one."""

    @property
    def kind(self) -> str:
        """Name of the SOP class; empty without one."""
        if self.sop_class == LABEL_MAP_SEGMENTATION:
            return "Label Map Segmentation Storage"
        return UID(self.sop_class).name if self.sop_class else ""


def objects_of_run(workspace: Workspace, store: SeriesStore) -> Iterator[PlannedObject]:
    """List the objects of all products of a run.

    Parameters
    ----------
    workspace : Workspace
        The run.
    store : SeriesStore
        Its records.

    Yields
    ------
    PlannedObject
        By series and product; SEGs of one product have a folder each.
    """
    taken: set[str] = set()
    for uid in store.series():
        made_by = {product.folder: _product_facts(store, uid, product) for product in store.products(uid)}
        for path in sorted(store.folder(uid).glob("*/objects/*.dcm")):
            product = path.parents[1].name
            item = _read_header(path, path.relative_to(workspace.root).as_posix(), Path(uid, product))
            if item is None:
                continue
            facts = made_by.get(product, _ProductFacts(product))
            kept = replace(item, series=uid, product=facts.key, segments=facts.segments)
            if kept.sop_class in SEGMENTATION_CLASSES and kept.target.as_posix() in taken:
                kept = replace(kept, target=kept.target / path.stem)
            if kept.sop_class in SEGMENTATION_CLASSES:
                taken.add(kept.target.as_posix())
            yield kept


class _ProductFacts(NamedTuple):
    """What the objects of a product have in common."""

    key: str
    """Key of the product, as all tables spell it."""
    segments: Mapping[int, str] = MappingProxyType({})
    """Segment number -> key of mappings/segments.csv."""


def _product_facts(store: SeriesStore, uid: str, product: Product) -> _ProductFacts:
    masks = store.find_valid(SegmentMasks, uid, product)
    return _ProductFacts(str(product), {s.number: s.name for s in masks.segments} if masks else {})


def objects_of_files(paths: Sequence[Path]) -> list[PlannedObject]:
    """Objects of the named files and folders, each with a folder of its own."""
    taken: set[str] = set()
    out = []
    for top in paths:
        for path in input_files(top):
            name = path.relative_to(top) if top.is_dir() else Path(path.name)
            item = _read_header(path, name.as_posix(), name.with_suffix("") if name.suffix == ".dcm" else name)
            if item is None and path == top:
                fault = InputError(Reason.NOT_DICOM, f"{path.name} is not DICOM")
                item = PlannedObject(path=path, name=path.name, target=name, fault=fault)
            if item is None or item.sop_class == MEDIA_STORAGE_DIRECTORY:
                continue
            target = _free_name(item, taken)
            taken.add(target.as_posix().casefold())
            out.append(replace(item, product=target.as_posix(), target=target))
    return out


def _free_name(item: PlannedObject, taken: set[str]) -> Path:
    """A folder that no other object has, also where file systems do not tell upper from lower case."""
    target = item.target
    if target.as_posix().casefold() in taken and item.sop_instance_uid:
        target = target.with_name(f"{target.name}_{item.sop_instance_uid}")
    number = 2
    first = target
    while target.as_posix().casefold() in taken:
        target = first.with_name(f"{first.name}_{number}")
        number += 1
    return target


def _read_header(path: Path, name: str, target: Path) -> PlannedObject | None:
    """Header of an object; a fault where it is damaged; None for a file that is not DICOM."""
    try:
        head = read_object_header(path)
    except CtenrichError as error:
        return PlannedObject(path=path, name=name, target=target, fault=error)
    if head is None:
        return None
    return PlannedObject(
        path=path,
        name=name,
        target=target,
        sop_class=head.sop_class,
        sop_instance_uid=_uid_or_nothing(head.sop_instance_uid),
        source_series=head.source_series,
        referenced=head.referenced,
    )


def _uid_or_nothing(text: str) -> str:
    try:
        return check_uid(text)
    except CtenrichError:
        return ""

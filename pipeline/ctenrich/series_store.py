"""Load and save the records of series and products; only this module knows their file names and folders.

Every record class has one file (:data:`RECORD_FILES`), in the folder of the series or of the product. Stages take and
return records; the stage table saves them here, once.

``series/<SeriesInstanceUID>/{fetched.json, sorted.json, volume.json, source/, volume/, <product folder>/{masks.json,
rois.json, stated.json, scores.json, shape.json, doses.json, features.json, landmarks.json, regions.json, objects.json,
proof.json, masks/, scores/, features/, objects/, archive/}}``
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from ctenrich.errors import InputError
from ctenrich.reasons import Reason
from ctenrich.records import (
    DoseMeasurements,
    EncodedObjects,
    FeatureVectors,
    FetchedSeries,
    Landmarks,
    ModelInfo,
    Product,
    Proof,
    Regions,
    SegmentMasks,
    ShapeMeasurements,
    SliceScores,
    SortedSeries,
    StatedMeasurements,
    StructureRois,
    Volume,
)
from ctenrich.workspace import Workspace, load_record, save_record

__all__ = ["PRODUCT_RECORDS", "RECORD_FILES", "SERIES_RECORDS", "ProductRecords", "SeriesStore"]

T = TypeVar("T")
_NamesProduct = EncodedObjects | SegmentMasks | SliceScores | Landmarks | Regions | StructureRois | StatedMeasurements

SERIES_RECORDS = MappingProxyType(
    {FetchedSeries: "fetched.json", SortedSeries: "sorted.json", Volume: "volume.json"},
)
"""Class of a record of a series -> name of its file in the series folder."""

PRODUCT_RECORDS = MappingProxyType(
    {
        SegmentMasks: "masks.json",
        StructureRois: "rois.json",
        StatedMeasurements: "stated.json",
        SliceScores: "scores.json",
        ShapeMeasurements: "shape.json",
        DoseMeasurements: "doses.json",
        FeatureVectors: "features.json",
        Landmarks: "landmarks.json",
        Regions: "regions.json",
        EncodedObjects: "objects.json",
        Proof: "proof.json",
    }
)
"""Class of a record of a product -> name of its file in the product's folder."""

RECORD_FILES: MappingProxyType[type, str] = MappingProxyType({**SERIES_RECORDS, **PRODUCT_RECORDS})
"""Class of a record -> name of its file."""

_NAMES_A_PRODUCT: tuple[type[_NamesProduct], ...] = (
    EncodedObjects,
    SegmentMasks,
    SliceScores,
    Landmarks,
    Regions,
    StructureRois,
    StatedMeasurements,
)
"""Records that contain the product of their folder, in the order in which they are tried."""


class SeriesStore:
    """Loads and saves the records of the series below a run's folder.

    Parameters
    ----------
    workspace : Workspace
        The run's folder.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    # ------------------------------------------------------------ paths

    def folder(self, uid: str, product: Product | None = None) -> Path:
        """Folder of a series, or of one of its products."""
        return self.workspace.series_dir(uid) if product is None else self.workspace.product_dir(uid, product)

    def path(self, record: type, uid: str, product: Product | None = None) -> Path:
        """File of a record.

        Parameters
        ----------
        record : type
            A class of :data:`RECORD_FILES`.
        uid : str
            Series Instance UID.
        product : Product, optional
            Needed for records of a product, not used for those of a series.
        """
        if record in SERIES_RECORDS:
            return self.folder(uid) / RECORD_FILES[record]
        if product is None:
            raise TypeError(f"{record.__name__} is a record of a product: give the product")
        return self.folder(uid, product) / RECORD_FILES[record]

    def source_dir(self, uid: str) -> Path:
        """Folder of the fetched DICOM objects of a series."""
        return self.folder(uid) / "source"

    def volume_dir(self, uid: str) -> Path:
        """Folder of the arrays that convert writes."""
        return self.folder(uid) / "volume"

    def volume_array(self, uid: str) -> Path:
        """The volume's array, ``.npy`` int16 [slice k, row j, column i]."""
        return self.volume_dir(uid) / "ct.npy"

    def volume_nifti(self, uid: str, *, compressed: bool = False) -> Path:
        """The volume as NIfTI."""
        return self.volume_dir(uid) / ("ct.nii.gz" if compressed else "ct.nii")

    def masks_dir(self, uid: str, product: Product) -> Path:
        """Folder of a product's label map or cropped masks."""
        return self.folder(uid, product) / "masks"

    def label_map(self, uid: str, product: Product) -> Path:
        """Label map of a segmenter whose segments are disjoint, ``.npy`` [k, j, i]."""
        return self.masks_dir(uid, product) / "labels.npy"

    def scores_dir(self, uid: str, product: Product) -> Path:
        """Folder of further files of the slice scores."""
        return self.folder(uid, product) / "scores"

    def features_dir(self, uid: str, product: Product) -> Path:
        """Folder of the vectors of feature models."""
        return self.folder(uid, product) / "features"

    def bpreg_json(self, uid: str, product: Product) -> Path:
        """Slice scores in the format of the bpreg package."""
        return self.scores_dir(uid, product) / "bodypart.json"

    def objects_dir(self, uid: str, product: Product) -> Path:
        """Folder of a product's DICOM objects."""
        return self.folder(uid, product) / "objects"

    def object_file(self, uid: str, product: Product, kind: str) -> Path:
        """File of a product's DICOM object of a kind.

        Parameters
        ----------
        uid : str
            Series Instance UID.
        product : Product
            One of the series' products.
        kind : str
            Key of the object kind.
        """
        return self.objects_dir(uid, product) / f"{kind}.dcm"

    # ------------------------------------------------------------ loading and saving

    def load(self, record: type[T], uid: str, product: Product | None = None) -> T:
        """Load a record.

        Raises
        ------
        InputError
            NOT_PREPARED if it has not been saved, BAD_RUN if the file does not hold such a record.
        """
        return load_record(self.path(record, uid, product), record)

    def find(self, record: type[T], uid: str, product: Product | None = None) -> T | None:
        """Load a record; None if it has not been saved."""
        path = self.path(record, uid, product)
        return load_record(path, record) if path.is_file() else None

    def find_valid(self, record: type[T], uid: str, product: Product | None = None) -> T | None:
        """Load a record; None if it has not been saved or its file is damaged."""
        try:
            return self.find(record, uid, product)
        except InputError:
            return None

    def model(self, uid: str, product: Product) -> ModelInfo | None:
        """The model of a product, as the records of a series state it; None for an expert, or without such a record.

        Parameters
        ----------
        uid : str
            Series Instance UID.
        product : Product
            One of the series' products.
        """
        record = self.find_valid(SegmentMasks, uid, product) or self.find_valid(SliceScores, uid, product)
        return record.model if record else None

    def demonstration_models(self) -> tuple[str, ...]:
        """Names of the demonstration models among the products of all series, sorted."""
        found: dict[Product, ModelInfo] = {}
        for uid in self.series():
            for product in self.products(uid):
                model = None if product in found else self.model(uid, product)
                if model is not None:
                    found[product] = model
        return tuple(sorted({model.name for model in found.values() if model.demo}))

    def has(self, record: type, uid: str, product: Product | None = None) -> bool:
        """Whether a record has been saved."""
        return self.path(record, uid, product).is_file()

    def save(self, record: Any, uid: str, product: Product | None = None) -> Path:
        """Save a record in its file, atomically; returns the path."""
        path = self.path(type(record), uid, product)
        save_record(path, record)
        return path

    def digest(self, record: type, uid: str, product: Product | None = None) -> str:
        """Compute the SHA-256 of a saved record without its timings; input of the cache keys.

        Raises
        ------
        InputError
            NOT_PREPARED if it has not been saved.
        """
        path = self.path(record, uid, product)
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            hint = "run the stages before it first"
            raise InputError(Reason.NOT_PREPARED, f"{path.name} has not been made yet", hint) from None
        data.pop("timings", None)
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    # ------------------------------------------------------------ series

    def fetched(self, uid: str) -> FetchedSeries:
        """The fetched files of a series."""
        return self.load(FetchedSeries, uid)

    def sorted_series(self, uid: str) -> SortedSeries:
        """The slices of a series in order."""
        return self.load(SortedSeries, uid)

    def volume(self, uid: str) -> Volume:
        """The volume of a series."""
        return self.load(Volume, uid)

    # ------------------------------------------------------------ products

    def masks(self, uid: str, product: Product) -> SegmentMasks:
        """Masks of a segmenter."""
        return self.load(SegmentMasks, uid, product)

    def scores(self, uid: str, product: Product) -> SliceScores:
        """Slice scores of body part regression."""
        return self.load(SliceScores, uid, product)

    def shape(self, uid: str, product: Product) -> ShapeMeasurements:
        """Shape features of a product's segments."""
        return self.load(ShapeMeasurements, uid, product)

    def landmarks(self, uid: str, product: Product) -> Landmarks:
        """Landmarks of a series."""
        return self.load(Landmarks, uid, product)

    def regions(self, uid: str, product: Product) -> Regions:
        """Body regions of every slice of a series."""
        return self.load(Regions, uid, product)

    def objects(self, uid: str, product: Product) -> EncodedObjects:
        """The DICOM objects of a product."""
        return self.load(EncodedObjects, uid, product)

    def proof(self, uid: str, product: Product) -> Proof:
        """The proof of a product's objects."""
        return self.load(Proof, uid, product)

    def product(self, uid: str, product: Product) -> ProductRecords:
        """The records of one product and of its series, loaded on first use."""
        return ProductRecords(self, uid, product)

    # ------------------------------------------------------------ listing

    def series(self) -> list[str]:
        """Series Instance UIDs that have a folder, sorted."""
        return self.workspace.series_uids()

    def products(self, uid: str) -> Iterator[Product]:
        """Products of a series that have records, by folder name; damaged records are skipped."""
        folder = self.folder(uid)
        for child in sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []:
            found = next(filter(None, (_product_of(child / RECORD_FILES[r], r) for r in _NAMES_A_PRODUCT)), None)
            if found is not None:
                yield found


def _product_of(path: Path, record: type[_NamesProduct]) -> Product | None:
    """Return the product in a record; None if there is no such record or it is damaged."""
    try:
        return load_record(path, record).product if path.is_file() else None
    except InputError:
        return None


class ProductRecords:
    """The records of one product and of its series, each loaded once, on first use.

    Parameters
    ----------
    store : SeriesStore
        The records on disk.
    uid : str
        Series Instance UID.
    product : Product
        One of the series' products.
    """

    def __init__(self, store: SeriesStore, uid: str, product: Product) -> None:
        self.store = store
        self.uid = uid
        self.product = product
        self._loaded: dict[type, Any] = {}

    def get(self, record: type[T]) -> T:
        """A record of the product or of its series.

        Raises
        ------
        InputError
            NOT_PREPARED if it has not been saved.
        """
        if record not in self._loaded:
            self._loaded[record] = self.store.load(record, self.uid, self.product)
        found: T = self._loaded[record]
        return found

    @property
    def series(self) -> SortedSeries:
        """The slices in order."""
        return self.get(SortedSeries)

    @property
    def volume(self) -> Volume:
        """The volume."""
        return self.get(Volume)

    @property
    def masks(self) -> SegmentMasks:
        """Masks of the segmenter."""
        return self.get(SegmentMasks)

    @property
    def shape(self) -> ShapeMeasurements:
        """Shape features of the segments."""
        return self.get(ShapeMeasurements)

    @property
    def doses(self) -> DoseMeasurements:
        """Doses of the segments."""
        return self.get(DoseMeasurements)

    @property
    def scores(self) -> SliceScores:
        """Slice scores."""
        return self.get(SliceScores)

    @property
    def landmarks(self) -> Landmarks:
        """Landmarks."""
        return self.get(Landmarks)

    @property
    def regions(self) -> Regions:
        """Regions of every slice."""
        return self.get(Regions)

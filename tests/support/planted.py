"""Objects with identifiers in every attribute of the dictionary, in sequences, private blocks and unknown values."""

from __future__ import annotations

from pathlib import Path

from pydicom import config
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage

__all__ = ["NEEDLES", "ROOT", "plant", "planted_file"]

ROOT = "1.2.826.0.1.3680043.99.4711"
NEEDLES = (b"mustermann", b"erika", b"pat4711x0815", ROOT.encode(), b"19490317", b"47114711")
"""What must not be in any result, in lower case."""
_VALUES: dict[str, object] = {
    "PN": "Mustermann^Erika", "AE": "MUSTERMANN", "AS": "ERIK", "CS": "MUSTERMANN", "DA": "19490317",
    "DT": "19490317101112", "TM": "101112", "DS": "47114711", "IS": "47114711", "UR": "http://x/PAT4711X0815",
    "LO": "Erika Mustermann PAT4711X0815", "SH": "Mustermann", "UI": f"{ROOT}.7", "UN": b"Mustermann^Erika",
    "US": 1, "SS": 1, "UL": 1, "SL": 1, "UV": 1, "SV": 1, "FL": 1.0, "FD": 1.0, "AT": 0x00100010,
}  # fmt: skip
_TEXT = "Seen with Erika Mustermann, PAT4711X0815, born 19490317, acc 47114711, " + ROOT + ".7"
_BYTES = b"header of Mustermann Erika, PAT4711X0815 "
_ALSO_REFUSED = {"BurnedInAnnotation", "ConversionType", "EncapsulatedDocument", "SamplesPerPixel", "ImageType"}
"""Attributes for whose value alone an object is refused."""
_NEEDED = {"SOPClassUID", "SpecificCharacterSet", "PatientID", "Rows", "Columns", "BitsAllocated"}


def planted_value(vr: str) -> object:
    """A value with identifiers, as far as the representation can hold them."""
    if vr in ("ST", "LT", "UT", "UC"):
        return _TEXT
    return _VALUES.get(vr, _BYTES)


def plant(dataset: Dataset, *, depth: int) -> None:
    """Fill a data set; sequences get an item each, nested to a depth."""
    for tag, (vrs, _, _, _, keyword) in DicomDictionary.items():
        group = tag >> 16
        if group < 8 or group in (0x7FE0, 0xFFFA, 0xFFFC, 0xFFFE) or keyword in _ALSO_REFUSED | _NEEDED:
            continue
        vr = vrs.split(" or ")[0]
        if vr in ("NONE", ""):
            continue
        if vr == "SQ":
            item = Dataset()
            if depth > 0 and group == 0x3006:
                plant_few(item, depth=depth)
            dataset.add(DataElement(tag, vr, Sequence([item])))
        else:
            dataset.add(DataElement(tag, vr, planted_value(vr), validation_mode=config.IGNORE))
    plant_private(dataset)


def plant_few(item: Dataset, *, depth: int) -> None:
    """Fill an item with one attribute of each representation, kept ones and others, and nest it."""
    names = (
        "PatientName", "OperatorsName", "SeriesDescription", "ConvolutionKernel", "Manufacturer", "CodeMeaning",
        "CodeValue", "StudyInstanceUID", "ReferencedSOPInstanceUID", "TextValue", "PersonName", "StudyDate",
        "AcquisitionDateTime", "InstitutionName", "RequestAttributesSequence", "PatientID", "ICCProfile",
        "BodyPartExamined", "KVP", "ROIName", "StationAETitle", "RetrieveURL", "EvaluatorName",
    )  # fmt: skip
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if keyword in names and vr != "SQ":
            item.add(DataElement(tag, vr, planted_value(vr), validation_mode=config.IGNORE))
    plant_private(item)
    if depth > 1:
        inner = Dataset()
        plant_few(inner, depth=depth - 1)
        item.add(DataElement(0x00400275, "SQ", Sequence([inner])))
        item.add(DataElement(0x0040A730, "SQ", Sequence([inner])))


def plant_private(dataset: Dataset) -> None:
    """A private block of every kind of value, and public attributes that no dictionary has."""
    block = dataset.private_block(0x0019, "MUSTERMANN 1", create=True)
    for element, vr in enumerate(("LO", "PN", "UT", "OB", "UN", "UI", "DA"), 1):
        dataset.add(DataElement(block.get_tag(element), vr, planted_value(vr), validation_mode=config.IGNORE))
    dataset.add(DataElement(0x00089999, "UN", b"Mustermann^Erika"))
    dataset.add(DataElement(0x60000022, "LO", "Mustermann"))
    dataset.add(DataElement(0x60003000, "OW", _BYTES))


def planted_file(path: Path, *, syntax: str) -> Path:
    """Write a CT image full of identifiers; the preamble and the file meta information have some too."""
    dataset = Dataset()
    plant(dataset, depth=3)
    dataset.SOPClassUID, dataset.PatientID, dataset.SpecificCharacterSet = CTImageStorage, "PAT4711X0815", "ISO_IR 100"
    dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.PixelRepresentation = 2, 2, 16, 0
    dataset.LUTDescriptor = [2, 0, 8]
    dataset.SamplesPerPixel, dataset.AccessionNumber = 1, "47114711"
    dataset.PixelData = bytes(8)
    dataset["PixelData"].VR = "OW"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, f"{ROOT}.7"
    meta.TransferSyntaxUID = syntax
    meta.SourceApplicationEntityTitle = "MUSTERMANN"
    meta.ImplementationClassUID, meta.ImplementationVersionName = f"{ROOT}.8", "MUSTERMANN"
    meta.PrivateInformationCreatorUID, meta.PrivateInformation = f"{ROOT}.9", b"Mustermann^Erika"
    dataset.file_meta = meta
    dataset.preamble = b"Mustermann^Erika".ljust(128, b"\0")
    dataset.save_as(path, enforce_file_format=True)
    return path

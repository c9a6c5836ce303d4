"""Generated chest CT with ground truth: arrays and DICOM files, with or without faults."""

from __future__ import annotations

from ctenrich.phantom.anatomy import SEGMENTS
from ctenrich.phantom.dose import PhantomDose, phantom_dose, write_phantom_dose
from ctenrich.phantom.options import ORIENTATIONS, FileOrder, PhantomOptions, PixelEncoding, Quirk
from ctenrich.phantom.records import as_records
from ctenrich.phantom.study import PhantomStudy, write_phantom_study
from ctenrich.phantom.volume import Phantom, make_phantom

__all__ = [
    "ORIENTATIONS",
    "SEGMENTS",
    "FileOrder",
    "Phantom",
    "PhantomDose",
    "PhantomOptions",
    "PhantomStudy",
    "PixelEncoding",
    "Quirk",
    "as_records",
    "make_phantom",
    "phantom_dose",
    "write_phantom_dose",
    "write_phantom_study",
]

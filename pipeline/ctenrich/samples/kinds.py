"""The list of sample objects: one entry for every kind that ctenrich writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ctenrich.samples.maps import DOSE_STEP
from ctenrich.samples.runs import SampleRuns

__all__ = ["SAMPLES", "Sample"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample object."""

    file: str
    """Name in the folder ``objects``."""
    title: str
    look: str
    """What a viewer that supports the object must show."""
    make: Callable[[SampleRuns], Path]
    """Returns the object, which is copied."""
    example: str = ""
    """Meaning of the quantity that the README shows of each group of a report."""
    needs_pyradiomics: bool = False


SAMPLES: tuple[Sample, ...] = (
    Sample(
        file="seg_binary.dcm",
        title="Segmentation, BINARY",
        look="every segment in its colour, on the slices and the side of the table below",
        make=lambda runs: runs.binary_object("seg"),
    ),
    Sample(
        file="seg_labelmap.dcm",
        title="Label Map Segmentation (one frame per slice)",
        look="the same as seg_binary.dcm, in the same colours",
        make=lambda runs: runs.label_map_object("seg"),
    ),
    Sample(
        file="seg_fractional.dcm",
        title="Segmentation, FRACTIONAL: share of the 3 x 3 pixels around each pixel that the organ occupies",
        look="heart and lungs as in seg_binary.dcm, with values that fall from 1 to 0 within three pixels at their "
        "borders; the table counts voxels of at least one half",
        make=lambda runs: runs.maps.fractions(),
    ),
    Sample(
        file="map_float.dcm",
        title="Parametric Map, 32-bit floating point: the dose function of the phantom, in Gy",
        look="one bright spot in the left lung beside the heart; the values and places below",
        make=lambda runs: runs.maps.dose(),
    ),
    Sample(
        file="map_integer.dcm",
        title="Parametric Map, 16-bit integers with a Real World Value Mapping: the same dose in steps of 0.01 Gy",
        look="the same as map_float.dcm; a viewer that shows values 100 times as large shows stored ones and does not "
        "apply the mapping",
        make=lambda runs: runs.maps.dose(DOSE_STEP),
    ),
    Sample(
        file="shape_sr.dcm",
        title="TID 1500 report, shape of the segments of seg_binary.dcm",
        look="one group per segment, with its values and units",
        make=lambda runs: runs.binary_object("shape_sr"),
        example="Volume from Voxel Summation",
    ),
    Sample(
        file="intensity_sr.dcm",
        title="TID 1500 report, shape, intensities and textures of the same masks",
        look="the groups of shape_sr.dcm with more values, and the discretisation as Algorithm Parameters",
        make=lambda runs: runs.intensity_report(),
        example="Mean Intensity",
        needs_pyradiomics=True,
    ),
    Sample(
        file="dose_sr.dcm",
        title="TID 1500 report, dose metrics of the segments",
        look="one group per segment, with doses in Gy and their uncertainties",
        make=lambda runs: runs.binary_object("dose_sr"),
        example="Mean Absorbed Radiation Dose",
    ),
    Sample(
        file="seg_harmonised.dcm",
        title="Segmentation, the same masks harmonised as those of another program",
        look="the same as seg_binary.dcm",
        make=lambda runs: runs.harmonised_object("seg"),
    ),
    Sample(
        file="stated_sr.dcm",
        title="TID 1500 report, volumes that another program stated of the segments of seg_harmonised.dcm",
        look="one group per segment with one volume; the program is named",
        make=lambda runs: runs.harmonised_object("stated_sr"),
        example="Volume from Voxel Summation",
    ),
    Sample(
        file="features_sr.dcm",
        title="TID 1500 report, feature vectors of the segments of seg_binary.dcm by a network with invented weights",
        look="one group per segment, with the number of values, the norm and the hashes of its vector; no values",
        make=lambda runs: runs.features_report(),
        example="Euclidean norm of the feature vector",
    ),
    Sample(
        file="landmarks_sr.dcm",
        title="TID 1500 report, landmarks on slices",
        look="one group per landmark, with the slice that it refers to",
        make=lambda runs: runs.binary_object("landmarks_sr"),
        example="Slice score",
    ),
    Sample(
        file="regions_sr.dcm",
        title="TID 1500 report, body regions of every slice",
        look="one group per slice, with the regions as finding sites",
        make=lambda runs: runs.binary_object("regions_sr"),
        example="Slice score",
    ),
    Sample(
        file="structure_set.dcm",
        title="RT Structure Set of the masks",
        look="contours around the same structures, under names of TG-263",
        make=lambda runs: runs.structure_set(),
    ),
    Sample(
        file="isodoses_seg.dcm",
        title="Segmentation, isodoses of 20, 40 and 60 Gy",
        look="three nested regions; the innermost lies in the left lung beside the heart",
        make=lambda runs: runs.isodoses("seg"),
    ),
    Sample(
        file="isodoses_rtstruct.dcm",
        title="RT Structure Set, isodoses of 20, 40 and 60 Gy",
        look="three nested contours at the same place",
        make=lambda runs: runs.isodoses("rtstruct"),
    ),
)
"""Every kind of object that ctenrich writes; a new kind gets its entry here."""

"""The dose-volume histograms that a planning system wrote into an RT Dose, and whether they agree with themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctenrich.dicom.values import number, numbers, text, whole
from ctenrich.records import Issue, Severity

__all__ = ["CalculatedDose", "VendorDvh", "check_vendor_dvhs", "confirm_vendor_dvhs", "read_vendor_dvhs"]

Floats = NDArray[np.float64]

_MEAN_SHARE, _MEAN_GY = 0.02, 0.05
"""Difference of a stated mean from that of its curve, as a share of it or in Gy, that rounding explains."""
_VOLUME_SHARE, _VOLUME_CM3 = 0.05, 1.0
"""Difference of a stated volume from the drawn one that another way to end a structure explains (share, or cm3)."""
_DOSE_SHARE, _DOSE_GY = 0.03, 0.5
"""Difference of a stated mean from that of the dose grid that another sampling explains (share, or Gy)."""
_HIGH = 0.1
"""Share of the largest mean below which the bins of a curve are too wide for a factor."""
_SAME_FACTOR = 0.03
"""Spread of the factors between stated and calculated means that make one cause likely."""


@dataclass(frozen=True, kw_only=True)
class VendorDvh:
    """One DVH of an RT Dose (PS3.3 C.8.8.4), as stated."""

    roi_numbers: tuple[int, ...]
    units: str
    """GY or RELATIVE."""
    type: str
    """CUMULATIVE, DIFFERENTIAL or NATURAL."""
    doses: Floats
    """Lower edge of every bin in `units`, (n,)."""
    volumes: Floats
    """cm3 (cumulative: with at least the dose of the edge), (n,)."""
    volume_units: str
    mean: float | None
    minimum: float | None
    maximum: float | None

    @property
    def volume(self) -> float:
        """Volume of the structure by the curve, in `volume_units`."""
        if not self.volumes.size:
            return 0.0
        return float(self.volumes[0] if self.type == "CUMULATIVE" else self.volumes.sum())

    @property
    def curve_mean(self) -> float | None:
        """Mean dose by the curve, each bin at its middle; None where there is no usable curve."""
        if self.doses.size < 2 or self.type not in ("CUMULATIVE", "DIFFERENTIAL") or not self.volume:
            return None
        widths = np.diff(self.doses)
        middles = self.doses + 0.5 * np.append(widths, widths[-1])
        parts = -np.diff(np.append(self.volumes, 0.0)) if self.type == "CUMULATIVE" else self.volumes
        return float((middles * parts).sum() / parts.sum())

    @property
    def means_agree(self) -> bool | None:
        """Whether the stated mean is that of the curve; None where one of them is missing."""
        found = self.curve_mean
        if found is None or self.mean is None:
            return None
        return abs(self.mean - found) <= max(_MEAN_SHARE * abs(found), _MEAN_GY)


@dataclass(frozen=True, kw_only=True)
class CalculatedDose:
    """Volume and mean dose of one ROI by the contours and the dose grid of the files."""

    number: int
    """ROI Number."""
    name: str
    volume: float
    """cm3."""
    mean: float
    """Gy."""


def read_vendor_dvhs(dataset: Dataset) -> tuple[VendorDvh, ...]:
    """Read the DVH Sequence of an RT Dose.

    Items without readable pairs of bin width and volume are kept with an empty curve.
    """
    out = []
    for item in dataset.get("DVHSequence") or ():
        pairs = np.array(numbers(item, "DVHData") or (), float)
        scaling = number(item, "DVHDoseScaling")
        if pairs.size % 2 or not np.isfinite(pairs).all() or scaling is None:
            pairs = np.zeros(0)
        widths, volumes = pairs[0::2] * (scaling or 0.0), pairs[1::2]
        rois = [whole(one, "ReferencedROINumber") for one in item.get("DVHReferencedROISequence") or ()]
        out.append(
            VendorDvh(
                roi_numbers=tuple(one for one in rois if one is not None),
                units=text(item, "DoseUnits").upper(),
                type=text(item, "DVHType").upper(),
                doses=np.cumsum(widths) - widths,
                volumes=volumes,
                volume_units=text(item, "DVHVolumeUnits").upper(),
                mean=number(item, "DVHMeanDose"),
                minimum=number(item, "DVHMinimumDose"),
                maximum=number(item, "DVHMaximumDose"),
            )
        )
    return tuple(out)


def check_vendor_dvhs(dvhs: Sequence[VendorDvh], about: str) -> list[Issue]:
    """Report stated means that are not those of their own curves: no stated number of such a file may be shown.

    Parameters
    ----------
    dvhs : sequence of VendorDvh
        Of one RT Dose.
    about : str
        Its SOP Instance UID.

    Returns
    -------
    list of Issue
        Empty where all means agree. One factor for all of them is stated: a mean in percent of a reference dose,
        labelled GY, has the factor 100 / reference dose.
    """
    wrong = [dvh for dvh in dvhs if dvh.means_agree is False]
    if not wrong:
        return []
    checked = sum(dvh.means_agree is not None for dvh in dvhs)
    message = f"the stated mean doses of {len(wrong)} of {checked} DVHs are not those of their curves: not used"
    hottest = max((dvh.curve_mean or 0.0) for dvh in dvhs)
    high = [dvh for dvh in wrong if (dvh.curve_mean or 0.0) > _HIGH * hottest]
    factors = [dvh.mean / dvh.curve_mean for dvh in high if dvh.mean and dvh.curve_mean]
    if factors and np.ptp(factors) <= _SAME_FACTOR * float(np.median(factors)):
        factor = float(np.median(factors))
        message += (
            f"; they are about {factor:.3f} times the mean of the curve, as percent of {100 / factor:.2f} Gy would be"
        )
    return [Issue("dose.vendor_dvh", Severity.WARNING, about, message, checker="ctenrich.dose")]


def confirm_vendor_dvhs(
    dvhs: Sequence[VendorDvh], calculated: Sequence[CalculatedDose], about: str
) -> tuple[tuple[VendorDvh, ...], list[Issue]]:
    """Keep the DVHs that belong to the contours and the dose of the files.

    A DVH may be that of an earlier plan, of other contours, or of another structure under the same number: its curve
    then agrees with its stated mean, and neither with the dose.

    Parameters
    ----------
    dvhs : sequence of VendorDvh
        Of one RT Dose.
    calculated : sequence of CalculatedDose
        Of the ROIs that the dose grid covers.
    about : str
        SOP Instance UID of the dose.

    Returns
    -------
    confirmed : tuple of VendorDvh
        Their stated means are those of their curves, and mean and volume agree with the calculated ones. A DVH whose
        ROI was not calculated, or whose units are others than GY and CM3, is not among them.
    issues : list of Issue
        One for each DVH that disagrees.
    """
    known = {one.number: one for one in calculated}
    confirmed, issues = [], []
    for dvh in dvhs:
        rois = [known[number] for number in dvh.roi_numbers if number in known]
        if len(rois) != 1 or not dvh.means_agree or dvh.mean is None:
            continue
        if (dvh.units, dvh.volume_units) != ("GY", "CM3"):
            continue
        roi, found = rois[0], []
        if abs(dvh.mean - roi.mean) > max(_DOSE_SHARE * roi.mean, _DOSE_GY):
            found.append(f"its mean is {dvh.mean:.2f} Gy and that of the dose {roi.mean:.2f} Gy")
        if abs(dvh.volume - roi.volume) > max(_VOLUME_SHARE * roi.volume, _VOLUME_CM3):
            found.append(f"its volume is {dvh.volume:.2f} cm3 and that of the contours {roi.volume:.2f} cm3")
        if found:
            message = f"the DVH of {roi.name} is not that of this dose: {'; '.join(found)}: not used"
            issues.append(Issue("dose.vendor_dvh", Severity.WARNING, about, message, checker="ctenrich.dose"))
        else:
            confirmed.append(dvh)
    return tuple(confirmed), issues

"""The table of value representations is pydicom's."""

from __future__ import annotations

import struct

from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from ctenrich.dicom.elements import LONG_VRS, NUMBER_FORMATS, SHORT_VRS


def test_lengths_are_those_of_pydicom() -> None:
    assert {vr.decode() for vr in LONG_VRS} == EXPLICIT_VR_LENGTH_32
    assert {vr.decode() for vr in SHORT_VRS} == EXPLICIT_VR_LENGTH_16


def test_numbers_have_the_bytes_of_the_standard() -> None:
    sizes = {vr: struct.calcsize(f"<{code}") for vr, code in NUMBER_FORMATS.items()}
    assert sizes == {"FD": 8, "FL": 4, "SL": 4, "SS": 2, "UL": 4, "US": 2}

"""Archives of hospitals and research groups: search series and retrieve objects (DIMSE, DICOMweb, XNAT, TCIA)."""

from __future__ import annotations

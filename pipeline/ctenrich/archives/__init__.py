"""Archives of hospitals and research groups: search series and retrieve objects (DIMSE, DICOMweb, XNAT)."""

from __future__ import annotations

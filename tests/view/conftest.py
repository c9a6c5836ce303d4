"""The PACS that `publish` is tested with is what the viewer shows, too."""

from __future__ import annotations

from tests.test_publish import orthanc

__all__ = ["orthanc"]

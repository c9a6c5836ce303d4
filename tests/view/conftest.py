"""The PACS that `publish` is tested with is what the viewer shows, too."""

from __future__ import annotations

from tests.publish.test_objects import orthanc

__all__ = ["orthanc"]

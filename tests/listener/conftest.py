"""What the tests of the listener share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def senders_of_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pynetdicom encode the data sets of the tests' senders for any transfer syntax.

    ctenrich's own senders send files as they are, and set so for their whole process.
    """
    from pynetdicom import _config

    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", False)

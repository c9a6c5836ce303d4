"""A child process that misbehaves on request."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctenrich.errors import ModelError
from ctenrich.inference.isolation import serve_isolated
from ctenrich.reasons import Reason

__all__ = ["misbehave"]


def misbehave(request: Mapping[str, Any]) -> None:
    """Do what the request names."""
    match request["act"]:
        case "work":
            print("a library prints something")
            Path(request["file"]).write_text("done", "utf-8")
        case "allocate":
            bytearray(request["bytes"])
        case "spin":
            while True:
                pass
        case "die":
            os._exit(7)
        case "raise":
            raise ValueError("no such thing")
        case "refuse":
            raise ModelError(Reason.WRONG_MODALITY, "the model needs MR", "give CT")


if __name__ == "__main__":
    serve_isolated(misbehave)

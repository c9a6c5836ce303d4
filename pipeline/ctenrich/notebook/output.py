"""Show things in a notebook, on Colab or elsewhere; optional packages of notebooks."""

from __future__ import annotations

import importlib.util
from typing import Any

from ctenrich.tools import need_package

__all__ = ["html", "on_colab", "pyplot", "show"]


def html(text: str) -> Any:
    """A piece of HTML that a notebook shows."""
    import IPython.display as shown

    make: Any = shown.HTML
    return make(text)


def show(item: Any, *, handle: bool = False) -> Any:
    """Show an item now.

    Parameters
    ----------
    item : object
        Anything that IPython can display.
    handle : bool
        Whether to return a handle that can replace the item later.

    Returns
    -------
    IPython.display.DisplayHandle or None
    """
    import IPython.display as shown

    display: Any = shown.display
    return display(item, display_id=True) if handle else display(item)


def on_colab() -> bool:
    """Whether this is Google Colab."""
    try:
        return importlib.util.find_spec("google.colab") is not None
    except ModuleNotFoundError:
        return False


def pyplot() -> Any:
    """Return matplotlib's pyplot.

    Raises
    ------
    UsageError
        MISSING_EXTRA if matplotlib is not installed.
    """
    need_package("matplotlib", extra="colab", purpose="a chart in a notebook")
    import matplotlib.pyplot as plt

    return plt

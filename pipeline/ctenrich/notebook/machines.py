"""The machine of a notebook and what work on it costs: GPU, Google account, Drive, price of a query and of a run."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctenrich.catalog import open_catalog
from ctenrich.catalog.queries import load_query
from ctenrich.notebook.output import html, on_colab
from ctenrich.runner.forecast import Prices, forecast, load_rates, products_of
from ctenrich.select.cohort_file import read_cohort, sizes_of

__all__ = ["log_in", "machine", "mount_drive", "query_cost", "run_cost"]

_DRIVE = Path("/content/drive")


def log_in(project: str = "") -> bool:
    """Ask for a Google account on Colab, if a project was named.

    Returns
    -------
    bool
        Whether the account was asked for. Elsewhere, run ``gcloud auth application-default login``.
    """
    if not project or not on_colab():
        return False
    from importlib import import_module

    auth: Any = import_module("google.colab.auth")
    auth.authenticate_user(project_id=project)
    return True


def query_cost(query: str, catalog: str, parameters: Mapping[str, object]) -> str:
    """Describe the cost of a selection: the bytes of a dry run and their list price, or that it is free.

    Parameters
    ----------
    query : str
        A file, or the name of one in queries/.
    catalog : str
        As for ``steps.select``.
    parameters : mapping
        Values of the query's @parameters.

    Returns
    -------
    str
    """
    opened = open_catalog(catalog)
    try:
        found = opened.estimate(load_query(query), parameters)
    finally:
        opened.close()
    if found is None:
        return "This catalog costs nothing."
    return f"The query reads up to {found.bytes / 1e9:.3f} GB: at most ${found.price_usd:.2f} (list price)."


def run_cost(cohort: Path, segmenters: Sequence[str], bodypart: str, price_per_hour: float = 0.0) -> str:
    """Describe what a run would take: hours, gigabytes and price; nothing is run.

    Parameters
    ----------
    cohort : Path
        Cohort file.
    segmenters : sequence of str
        As for ``ctenrich run --segmenter``.
    bodypart : str
        Body part regression model, or ``none``.
    price_per_hour : float
        Price of the machine, in dollars.

    Returns
    -------
    str
    """
    products = products_of(segmenters, bodypart)
    found = forecast(sizes_of(read_cohort(cohort)), products, load_rates(), prices=Prices(price_per_hour))
    return (
        f"{found.series} series, {found.slices} slices, {found.gigabytes:.2f} GB to read; "
        f"{found.wall_hours:.2f} h, up to {found.peak_disk_gigabytes:.1f} GB of disk, ${found.cost:.2f} "
        f"(rates: {found.source})"
    )


def mount_drive(folder: str, *, wanted: bool) -> Path:
    """Return the folder of a notebook's files; on Colab, if wanted, on the user's Google Drive, where it is kept.

    Parameters
    ----------
    folder : str
        Name of the folder, or a path.
    wanted : bool
        Whether Google Drive is mounted; without effect elsewhere than on Colab.

    Returns
    -------
    Path
        The folder, which exists.
    """
    root = Path(folder)
    if wanted and on_colab():
        from importlib import import_module

        drive: Any = import_module("google.colab.drive")
        drive.mount(str(_DRIVE))
        root = _DRIVE / "MyDrive" / folder
    root.mkdir(parents=True, exist_ok=True)
    return root


def machine(device: str = "auto") -> Any:
    """Show cores, memory and GPU of this machine, and where the networks will run.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu`` or ``cuda:0``: what the parameters of the notebook ask for.

    Returns
    -------
    IPython.display.HTML
    """
    import psutil

    gpu = _gpu()
    if device == "cpu" or (device == "auto" and not gpu):
        advice = "The networks run on the CPU: enough for the generated study, slow for real models."
        if not gpu:
            advice += " On Colab a GPU is chosen under <i>Runtime, Change runtime type</i>; then run all cells again."
    elif gpu:
        advice = f"The networks run on {gpu}."
    else:
        advice = f"<b>{device} was asked for, but no GPU was found</b>: choose <code>auto</code> or <code>cpu</code>."
    rows = {"cores": os.cpu_count(), "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB", "GPU": gpu or "none"}
    cells = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows.items())
    return html(f"<table>{cells}</table><p>{advice}</p>")


def _gpu() -> str:
    if importlib.util.find_spec("torch") is None:
        return ""
    import torch

    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else ""

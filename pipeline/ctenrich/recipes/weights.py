"""Find the weights of a recipe on this machine. Nothing is downloaded, and TotalSegmentator's folders are only read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ctenrich.errors import ModelError, UnknownModelError
from ctenrich.inference.registry import ModelEntry, ModelKind, ResolvedModel, check_name, models_home
from ctenrich.reasons import Reason
from ctenrich.recipes.recipe import Weights

__all__ = ["find_all_weights", "weights_folders"]


def weights_folders() -> tuple[Path, ...]:
    """Folders that hold ``DatasetNNN_...`` folders, in the order in which they are searched.

    First the models that were imported, then the folders of a TotalSegmentator on this machine:
    ``TOTALSEG_WEIGHTS_PATH``, else ``nnunet/results`` in ``TOTALSEG_HOME_DIR`` or ``~/.totalsegmentator``. Version 1 of
    TotalSegmentator keeps its ``TaskNNN_...`` folders in ``nnUNet/3d_fullres`` below the same place.
    """
    imported = models_home() / "imported"
    inner = sorted(p for p in imported.iterdir() if p.is_dir()) if imported.is_dir() else []
    chosen = os.environ.get("TOTALSEG_WEIGHTS_PATH")
    home = Path(os.environ.get("TOTALSEG_HOME_DIR") or "~/.totalsegmentator")
    peer = (Path(chosen) if chosen else home / "nnunet" / "results").expanduser()
    return (imported, *inner, peer, peer / "nnUNet" / "3d_fullres")


def find_all_weights(weights: Sequence[Weights], folders: Sequence[Path], wanted_by: str) -> dict[str, ResolvedModel]:
    """Find the folders of several networks.

    Parameters
    ----------
    weights : sequence of Weights
    folders : sequence of Path
        Folders to search, in their order.
    wanted_by : str
        Name of the recipe, for the message.

    Returns
    -------
    dict of str to ResolvedModel
        By the name of the weights.

    Raises
    ------
    UnknownModelError
        NOT_FOUND, naming every data set that is missing, where it was published, and its licence.
    ModelError
        BAD_MODEL if a data set is there with other trainers or configurations only.
    """
    found = {item.name: _find(item, folders) for item in weights}
    missing = [item for item in weights if found[item.name] is None]
    if missing:
        names = ", ".join(dict.fromkeys(item.folder for item in missing))
        hint = "; ".join(dict.fromkeys(_published(item) for item in missing))
        hint += (
            "; ctenrich models pull SEGMENTER downloads those that are published, ctenrich models import FOLDER takes "
            "those that you have, TOTALSEG_WEIGHTS_PATH names a folder that holds them"
        )
        raise UnknownModelError(
            Reason.NOT_FOUND, f"{wanted_by} needs weights that are not on this machine: {names}", hint
        )
    return {name: model for name, model in found.items() if model is not None}


def _published(weights: Weights) -> str:
    number = f"data set {weights.name}"
    if not weights.url:
        return f"{number} is not published openly ({weights.licence or 'no licence stated'})"
    return f"{number} is at {weights.url} ({weights.licence or 'no licence stated'})"


def _find(weights: Weights, folders: Sequence[Path]) -> ResolvedModel | None:
    plans = "plans.pkl" if weights.version == 1 else "plans.json"
    for folder in folders:
        place = folder / weights.folder
        if not place.is_dir():
            continue
        if (place / plans).is_file():  # the trainer's own folder
            return _resolved(place, weights)
        inner = place / weights.folder  # a zip file that was imported with the folder that it holds
        top = folder if (folder / "import.json").is_file() else place
        place = inner if inner.is_dir() else place
        known = sorted(p.parent.name for p in place.glob(f"*/{plans}"))
        wanted = place / (weights.subfolder if weights.trainer or not known else known[0])
        if not wanted.is_dir():
            message = f"{weights.folder} does not hold {weights.subfolder}: it is another version of these weights"
            raise ModelError(
                Reason.BAD_MODEL, message, f"it holds {', '.join(known) or 'no model'}; {_published(weights)}"
            )
        return _resolved(top if len(known) == 1 else wanted, weights)
    return None


def _resolved(folder: Path, weights: Weights) -> ResolvedModel:
    dataset = next((p.name for p in (folder, folder.parent) if p.name.startswith(("Dataset", "Task"))), folder.name)
    entry = None
    if weights.version == 1:
        entry = ModelEntry(dataset, ModelKind.NNUNET_V1, labels=weights.class_names)
    return ResolvedModel(check_name(dataset), folder.resolve(), entry)

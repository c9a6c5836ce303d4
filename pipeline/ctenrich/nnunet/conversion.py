"""Convert a model's foreign files to safetensors and JSON; run as a child process of `ctenrich.nnunet.store`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctenrich.inference.isolation import serve_isolated
from ctenrich.inference.registry import ModelEntry, ModelKind, ResolvedModel, check_name
from ctenrich.nnunet.conventions import toml_labels
from ctenrich.nnunet.plans import ModelPlan, fail, parse_v2
from ctenrich.nnunet.source_folder import SourceConfiguration, read_v2
from ctenrich.nnunet.unet import check_weights
from ctenrich.nnunet.version1 import parse_v1, read_v1
from ctenrich.workspace import sha256_of_file

__all__ = ["FORMAT", "canonical_json", "convert_sources", "plan_of"]

FORMAT = 1
"""Version of model.json."""


def plan_of(kind: ModelKind, plans: Any, dataset: Any, configuration: str, mirror_axes: Any) -> ModelPlan:
    """Parse the plan of a configuration from plain data.

    Parameters
    ----------
    kind : ModelKind
        NNUNET_V1 or NNUNET_V2.
    plans, dataset : mapping
        As model.json has them.
    configuration : str
    mirror_axes : sequence of int or None
        Used for v2; v1 has them in its plans.

    Returns
    -------
    ModelPlan

    Raises
    ------
    ModelError
        BAD_MODEL or WRONG_MODALITY.
    """
    if kind is ModelKind.NNUNET_V1:
        return parse_v1(plans, dataset, configuration)
    return parse_v2(plans, dataset, configuration, mirror_axes)


def canonical_json(value: object) -> bytes:
    """JSON whose bytes depend on the value alone."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def convert_sources(model: ResolvedModel, sources: Mapping[str, str], staging: Path) -> None:
    """Write a model's configurations as ``model.json`` and ``CONFIGURATION/fold_F.safetensors``.

    Parameters
    ----------
    model : ResolvedModel
        Its folder is read; of its registry entry, the labels alone.
    sources : mapping of str to str
        SHA-256 of the source files, by name relative to the model's folder.
    staging : Path
        Folder to write to.

    Raises
    ------
    ModelError
        BAD_MODEL, UNSAFE_WEIGHTS or WRONG_MODALITY.
    """
    from safetensors.torch import save_file  # imports torch

    found = list(_source_configurations(model))
    configurations: dict[str, Any] = {}
    for source in found:
        plan = plan_of(source.kind, source.plans, source.dataset, source.configuration, source.mirror_axes)
        check_name(source.configuration)  # it names a folder below
        folds: dict[str, Any] = {}
        for fold, read in source.folds.items():
            weights = {name: t.contiguous() for name, t in read().items()}
            check_weights(plan.network, weights)
            file = f"{source.configuration}/fold_{fold}.safetensors"
            (staging / source.configuration).mkdir(exist_ok=True)
            save_file(weights, staging / file)
            folds[fold] = {"file": file, "sha256": sha256_of_file(staging / file)}
        configurations[source.configuration] = {
            "plans": source.plans,
            "dataset": source.dataset,
            "mirror_axes": list(source.mirror_axes),
            "trainer": source.trainer,
            "folds": folds,
        }
    meta = {
        "format": FORMAT,
        "kind": found[0].kind.value,
        "source_files": dict(sources),
        "configurations": configurations,
    }
    (staging / "model.json").write_bytes(canonical_json(meta))


def _source_configurations(model: ResolvedModel) -> Iterator[SourceConfiguration]:
    folders = sorted({p.parent for p in model.folder.rglob("plans.json")})
    if folders:
        seen: set[str] = set()
        for folder in folders:
            source = _with_toml_labels(read_v2(folder), model.folder, folder)
            if source.configuration in seen:
                fail(
                    f"{model.name} contains the configuration {source.configuration} twice",
                    "give the folder of one trainer",
                )
            seen.add(source.configuration)
            yield source
        return
    yield from read_v1(model)


def _with_toml_labels(source: SourceConfiguration, top: Path, folder: Path) -> SourceConfiguration:
    """Rename the labels of dataset.json as ctenrich.toml states, in the model's folder or the configuration's."""
    stated = toml_labels(folder) or toml_labels(top)
    known = source.dataset.get("labels")
    if not stated or not isinstance(known, dict):  # whatever else it is, the plan's parser refuses it
        return source
    values = [v for k, v in known.items() if k not in {"background", "ignore"}]
    if any(isinstance(v, list) for v in values):
        fail("[labels] of ctenrich.toml cannot rename regions", "rename them in dataset.json")
    if sorted(stated.values()) != sorted(int(v) for v in values):
        fail("[labels] of ctenrich.toml and dataset.json do not have the same values")
    kept = {k: v for k, v in known.items() if k in {"background", "ignore"}}
    return replace(source, dataset={**source.dataset, "labels": {**kept, **stated}})


def _convert_request(request: Mapping[str, Any]) -> None:
    name, labels = request["name"], request["labels"]
    entry = ModelEntry(name, ModelKind.NNUNET_V1, labels=labels) if labels is not None else None
    model = ResolvedModel(name, Path(request["folder"]), entry)
    convert_sources(model, request["sources"], Path(request["staging"]))


if __name__ == "__main__":
    import safetensors.torch  # noqa: F401  before the limits are set: torch takes more memory than a model may

    serve_isolated(_convert_request)

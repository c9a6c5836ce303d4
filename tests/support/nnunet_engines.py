"""The package's engine and the reference engine for one model folder."""

from __future__ import annotations

from pathlib import Path

import torch
from benchmarks.float32_predictor import Float32Predictor

from ctenrich.inference.registry import resolve_model
from ctenrich.nnunet.engine import Engine
from ctenrich.nnunet.reference import ReferenceEngine
from ctenrich.nnunet.store import load_weights, prepare
from ctenrich.settings import SegmentSettings

FAST = SegmentSettings(threads=1)
CPU = torch.device("cpu")


def engines(folder: Path, mirror: bool = True, settings: SegmentSettings = FAST) -> tuple[Engine, ReferenceEngine]:
    stored = prepare(resolve_model(str(folder)))
    name = stored.configurations[0]
    weights = {fold: load_weights(stored, name, fold) for fold in stored.folds(name)}
    source = stored.meta["configurations"][name]
    reference = ReferenceEngine(stored.plan(name), source, weights, settings, mirror, Float32Predictor)
    return Engine(stored.plan(name), weights, settings, mirror), reference

"""Stage features: feature vectors of the segments of a product, by the feature models of the run."""

from __future__ import annotations

from ctenrich.features.kinds import FeatureModel, open_features
from ctenrich.features.measure import RequestedFeatures, measure_features
from ctenrich.records import FeatureVectors
from ctenrich.stages.stage import StageContext

__all__ = ["measure_series_features"]


def measure_series_features(context: StageContext) -> FeatureVectors:
    """Make the feature vectors of a product by every feature model of the run."""
    requested = tuple(
        RequestedFeatures(spec=spec, model=_resident_model(context, spec)) for spec in context.settings.features.models
    )
    records = context.records
    return measure_features(
        records.masks, records.volume, requested, workspace=context.workspace, progress=context.progress
    )


def _resident_model(context: StageContext, spec: str) -> FeatureModel:
    return context.models.resident(f"features {spec}", lambda: open_features(spec, context.settings))

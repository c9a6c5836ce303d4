"""One function per stage, which returns the records of the stage."""

from __future__ import annotations

from ctenrich.progress import SILENT, Progress
from ctenrich.records import (
    EncodedObjects,
    FeatureVectors,
    FetchedSeries,
    Landmarks,
    Proof,
    Regions,
    SegmentMasks,
    ShapeMeasurements,
    SliceScores,
    SortedSeries,
    Volume,
)
from ctenrich.runner.run import Run
from ctenrich.steps.running import ByProduct, records_of_products, records_of_series, run_or_raise

__all__ = ["convert", "encode", "features", "fetch", "measure", "score", "segment", "sort", "validate"]


def fetch(run: Run, *, progress: Progress = SILENT) -> dict[str, FetchedSeries]:
    """Fetch the objects of every series and check that they are complete.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        Series Instance UID -> fetched files.

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    run_or_raise(run, "fetch", progress)
    return records_of_series(run, FetchedSeries)


def sort(run: Run, *, progress: Progress = SILENT) -> dict[str, SortedSeries]:
    """Order the slices of every series along the slice normal and check the geometry.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        Series Instance UID -> ordered slices, positions in mm LPS.

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    run_or_raise(run, "sort", progress)
    return records_of_series(run, SortedSeries)


def convert(run: Run, *, progress: Progress = SILENT) -> dict[str, Volume]:
    """Convert every series to one volume (memory-mapped array and NIfTI), compared between two readers.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        Series Instance UID -> volume, int16 HU, [k, j, i].

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    run_or_raise(run, "convert", progress)
    return records_of_series(run, Volume)


def segment(run: Run, *, progress: Progress = SILENT) -> ByProduct[SegmentMasks]:
    """Run every segmenter of the run on every volume.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        (Series Instance UID, product) -> masks on the grid of the volume.

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    run_or_raise(run, "segment", progress)
    return records_of_products(run, SegmentMasks)


def features(run: Run, *, progress: Progress = SILENT) -> ByProduct[FeatureVectors]:
    """Make the feature vectors of every product with masks, by the models of ``settings.features``.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        (Series Instance UID, product) -> records of the vectors; empty for a run without feature models.

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    run_or_raise(run, "features", progress)
    return records_of_products(run, FeatureVectors)


def score(run: Run, *, progress: Progress = SILENT) -> ByProduct[SliceScores]:
    """Score the slices of every volume with body part regression.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        (Series Instance UID, product) -> scores, one per slice.

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    run_or_raise(run, "score", progress)
    return records_of_products(run, SliceScores)


def measure(run: Run, *, progress: Progress = SILENT) -> ByProduct[ShapeMeasurements | Landmarks | Regions]:
    """Measure the segments of every product, or derive landmarks and regions from its slice scores.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        (Series Instance UID, product) -> shape features, or landmarks; regions have ``#regions`` at the end of the
        product.

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    run_or_raise(run, "measure", progress)
    found: ByProduct[ShapeMeasurements | Landmarks | Regions] = {}
    found.update(records_of_products(run, ShapeMeasurements))
    found.update(records_of_products(run, Landmarks))
    regions = records_of_products(run, Regions)
    found.update({(uid, f"{product}#regions"): record for (uid, product), record in regions.items()})
    return found


def encode(run: Run, *, progress: Progress = SILENT) -> ByProduct[EncodedObjects]:
    """Write DICOM SEG and SR objects.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        (Series Instance UID, product) -> records of the written files.

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    run_or_raise(run, "encode", progress)
    return records_of_products(run, EncodedObjects)


def validate(run: Run, *, progress: Progress = SILENT) -> ByProduct[Proof]:
    """Prove that every object expresses the computed result, and run the validators.

    Parameters
    ----------
    run : Run
        The run.
    progress : Progress
        Receives the steps of the stage.

    Returns
    -------
    dict
        (Series Instance UID, product) -> proof.

    Raises
    ------
    InputError
        The last error, if no series or no product could continue.
    """
    run_or_raise(run, "validate", progress)
    return records_of_products(run, Proof)

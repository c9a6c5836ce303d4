"""Proof that written objects express the computed results: they are read again independently and compared.

Nothing here uses highdicom, the decoders or the geometry of the other stages: objects and source slices are parsed
with pydicom alone, and positions are computed from the numbers in the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ctenrich.proof.bodypart import prove_landmarks_sr, prove_regions_sr, score_checks
from ctenrich.proof.checks import ObjectFile, Report, open_objects
from ctenrich.proof.doses import prove_dose_sr
from ctenrich.proof.features import prove_features_sr
from ctenrich.proof.segmentation import prove_seg
from ctenrich.proof.session import BodypartResult, ProofSession, ProveObject, SegmentationResult
from ctenrich.proof.shape import prove_shape_sr
from ctenrich.proof.source import read_source, source_checks
from ctenrich.proof.stated import prove_stated_sr
from ctenrich.records import EncodedObject, Proof
from ctenrich.settings import Settings
from ctenrich.workspace import Workspace

__all__ = [
    "BodypartResult",
    "ObjectFile",
    "ProofSession",
    "ProveObject",
    "SegmentationResult",
    "prove",
    "prove_dose_sr",
    "prove_features_sr",
    "prove_landmarks_sr",
    "prove_regions_sr",
    "prove_seg",
    "prove_shape_sr",
    "prove_stated_sr",
]


def prove(
    result: SegmentationResult | BodypartResult,
    objects: Sequence[EncodedObject],
    provers: Mapping[str, ProveObject | None],
    *,
    left_out: Sequence[str] = (),
    settings: Settings,
    workspace: Workspace,
) -> Proof:
    """Prove the objects of a product.

    Checks of every product: the source slices exist, in order, on the grid of the volume; scores belong to the slices;
    each object that the product must have exists once and is the file that was written, in the study of its source. The
    content of each kind of object is checked by its own function (`prove_seg`, `prove_shape_sr`, `prove_dose_sr`,
    `prove_stated_sr`, `prove_features_sr`, `prove_landmarks_sr`, `prove_regions_sr`).

    Parameters
    ----------
    result : SegmentationResult or BodypartResult
        The computed results.
    objects : sequence of EncodedObject
        Records of the written objects.
    provers : mapping
        Object kind -> function that adds its checks, for every kind that the product must have, in the order of
        writing; None for a kind that cannot be proven, which the proof then lists as not proven.
    left_out : sequence of str
        Object kinds of the product for which the result has no content: there must be no object of them.
    settings : Settings
        ``settings.geometry``: tolerances, mm.
    workspace : Workspace
        Folder of the run.

    Returns
    -------
    Proof
        All checks, passed or not; the contents of a file never cause an exception.
    """
    report = Report(str(result.product))
    source = read_source(result.series, workspace)
    volume = result.volume if isinstance(result, SegmentationResult) else None
    source_checks(report, source, result.series, volume, settings.geometry)
    if isinstance(result, BodypartResult):
        score_checks(report, result.scores, source)
    files = open_objects(report, objects, tuple(provers), result.series, workspace)
    for kind in left_out:
        absent = all(record.kind != kind for record in objects)
        report.add(f"{kind}.left_out", absent, "the result has no content for this object: it must not exist")
    if isinstance(result, SegmentationResult):
        report.hashes["masks"] = result.masks.sha256
        report.hashes["volume"] = result.volume.sha256
    else:
        report.hashes["scores"] = result.scores.sha256
    session = ProofSession(
        report=report, result=result, source=source, settings=settings, workspace=workspace, files=files
    )
    for kind, prover in provers.items():
        if prover is None:
            report.not_proven.append(kind)
        elif kind in files:
            with report.guard(f"{kind}.read"):
                prover(session, files[kind])
    return report.proof()

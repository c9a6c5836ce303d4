"""Records of a run as tables (pandas) with units in their headings, for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctenrich.records import Cohort, EncodedObjects, Proof, SegmentMasks, ShapeMeasurements, Volume
from ctenrich.tools import need_package

__all__ = ["checks_table", "objects_table", "segments_table", "series_table"]


def _frame(rows: list[dict[str, Any]]) -> Any:
    need_package("pandas", extra="colab", purpose="a table in a notebook")
    import pandas as pd

    return pd.DataFrame(rows)


def series_table(cohort: Cohort, most: int = 20) -> Any:
    """One row per series of a cohort: patient, number of slices, licence.

    Parameters
    ----------
    cohort : Cohort
        The selected series.
    most : int
        The first so many rows.

    Returns
    -------
    pandas.DataFrame
    """
    return _frame(
        [
            {
                "collection": entry.collection_id,
                "patient": entry.patient_id,
                "series (end of its UID)": entry.series_instance_uid[-12:],
                "slices": entry.instance_count,
                "contours or SEGs": len(entry.companions),
                "licence": entry.license_short_name or "not stated",
            }
            for entry in cohort.series[:most]
        ]
    )


def segments_table(masks: SegmentMasks, volume: Volume, shapes: ShapeMeasurements | None = None) -> Any:
    """One row per segment of a product: number, name, volume, and sphericity where it was measured.

    Parameters
    ----------
    masks : SegmentMasks
        The product.
    volume : Volume
        The CT, for the size of a voxel.
    shapes : ShapeMeasurements, optional
        Its measurements.

    Returns
    -------
    pandas.DataFrame
    """
    millilitres = volume.spacing[0] * volume.spacing[1] * volume.spacing[2] / 1e3
    measured = {s.number: s.values for s in shapes.segments} if shapes is not None else {}
    rows = []
    for segment in masks.segments:
        row: dict[str, Any] = {
            "segment number": segment.number,
            "organ": segment.name,
            "voxels": segment.voxels,
            "volume from voxels, mL": round(segment.voxels * millilitres, 1),
        }
        values = measured.get(segment.number, {})
        if measured:
            row["mesh volume, mL"] = round(values["MeshVolume"] / 1e3, 1) if "MeshVolume" in values else None
            row["sphericity, 0 to 1"] = round(values["Sphericity"], 3) if "Sphericity" in values else None
        rows.append(row)
    return _frame(rows)


def objects_table(objects: Mapping[tuple[str, str], EncodedObjects]) -> Any:
    """One row per written DICOM object: series, product, kind, file and hash.

    Parameters
    ----------
    objects : mapping
        What ``steps.encode`` returned.

    Returns
    -------
    pandas.DataFrame
    """
    return _frame(
        [
            {"series": uid[-12:], "product": product, "kind": o.kind, "file": o.path, "SHA-256": o.sha256[:12]}
            for (uid, product), record in objects.items()
            for o in record.objects
        ]
    )


def checks_table(proof: Proof) -> Any:
    """One row per check of a proof: its name, whether it passed, what was compared.

    Parameters
    ----------
    proof : Proof
        Of one product.

    Returns
    -------
    pandas.DataFrame
    """
    return _frame([{"check": c.name, "passed": c.passed, "what was compared": c.detail} for c in proof.checks])

"""Hand a phantom over as the records of conversion, without writing DICOM files."""

from __future__ import annotations

import numpy as np

from ctenrich.dicom.sop_classes import CT_IMAGE
from ctenrich.phantom.identity import make_identity
from ctenrich.phantom.volume import Phantom
from ctenrich.records import Matrix4, Slice, SortedSeries, Vector, Volume
from ctenrich.workspace import Workspace, save_array, sha256_of_array

__all__ = ["as_records"]


def as_records(phantom: Phantom, workspace: Workspace) -> tuple[Volume, SortedSeries]:
    """Save the array in the series' folder and describe it as if its files had been fetched, sorted and converted.

    The UIDs are those that `write_phantom_study` writes for the same options; the slices have no files.

    Parameters
    ----------
    phantom : Phantom
    workspace : Workspace

    Returns
    -------
    (Volume, SortedSeries)
    """
    identity, options = make_identity(phantom.options), phantom.options
    path = workspace.series_dir(identity.series) / "volume" / "ct.npy"
    save_array(path, phantom.array)
    axes = np.linalg.norm(phantom.affine_lps[:3, :3], axis=0)
    row, column = (phantom.affine_lps[:3, n] / axes[n] for n in (0, 1))
    normal = np.cross(row, column)
    slices = tuple(
        Slice(identity.instance("slice", str(k)), CT_IMAGE, "", _vector_of(position), float(position @ normal))
        for k, position in enumerate(phantom.positions)
    )
    volume = Volume(
        series_instance_uid=identity.series,
        array_path=workspace.relative(identity.series, path),
        shape=(options.slices, options.rows, options.columns),
        affine_lps=_affine_of(phantom),
        spacing=(float(axes[2]), float(axes[1]), float(axes[0])),
        frame_of_reference_uid=identity.frame_of_reference,
        sha256=sha256_of_array(phantom.array),
    )
    series = SortedSeries(
        study_instance_uid=identity.study,
        series_instance_uid=identity.series,
        frame_of_reference_uid=identity.frame_of_reference,
        slices=slices,
        row_cosines=_vector_of(row),
        column_cosines=_vector_of(column),
        pixel_spacing=options.pixel_spacing,
        slice_spacing=float(axes[2]),
        rows=options.rows,
        columns=options.columns,
    )
    return volume, series


def _vector_of(values: np.typing.NDArray[np.float64]) -> Vector:
    x, y, z = (float(v) for v in values)
    return x, y, z


def _affine_of(phantom: Phantom) -> Matrix4:
    a, b, c, d = ((float(w), float(x), float(y), float(z)) for w, x, y, z in phantom.affine_lps)
    return a, b, c, d

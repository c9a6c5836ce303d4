"""The generated study of the sample objects, and the runs that make them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from ctenrich import steps
from ctenrich.catalog.folder import FolderCatalog
from ctenrich.dicom.series import series_of_folder
from ctenrich.dose.isodoses import IsodoseForm, write_isodoses
from ctenrich.dose.reader import read_dose
from ctenrich.encode.rtstruct import StructureSetOptions
from ctenrich.errors import EncodingError
from ctenrich.harmonise.plan import HarmoniseOptions
from ctenrich.phantom import PhantomDose, PhantomOptions, PhantomStudy, write_phantom_dose, write_phantom_study
from ctenrich.publish.structure_sets import export_structure_sets, names_of_tg263
from ctenrich.reasons import Reason
from ctenrich.records import SortedSeries
from ctenrich.runner.recorder import RunSummary
from ctenrich.runner.run import Run
from ctenrich.samples.maps import SampleMaps
from ctenrich.samples.network import write_sample_network
from ctenrich.series_store import SeriesStore
from ctenrich.settings import FeaturesSettings, SegmentSettings, Settings
from ctenrich.steps import HarmoniseSource
from ctenrich.treatments.files import write_treatments
from ctenrich.treatments.make import TreatmentRequest, make_treatments
from ctenrich.workspace import write_bytes

__all__ = ["SampleRuns"]

PATIENT = PhantomOptions(
    seed=9010,
    rows=128,
    columns=128,
    pixel_spacing=(3.2, 3.2),
    slices=60,
    slice_spacing=5.0,
    rtstruct=True,
    patient_id="CTENRICH-SAMPLE",
    patient_name="Phantom^Sample",
)
"""The chest of the samples; small, so that every program opens it quickly."""
DOSE_SPACING = 8.0
"""mm between the voxels of the dose."""
INTENSITY = {"featureClass": {"firstorder": [], "glcm": []}, "setting": {"binWidth": 25}}
"""pyradiomics' parameters of the report of intensities and textures."""


class SampleRuns:
    """The study, and its runs; each is made when it is first asked for.

    Parameters
    ----------
    images : Path
        Folder for the CT with its RT Structure Set, plan and dose.
    scratch : Path
        Folder for the runs.
    options : PhantomOptions, optional
        Another patient or grid.
    """

    def __init__(self, images: Path, scratch: Path, options: PhantomOptions | None = None) -> None:
        self._images, self._scratch = images, scratch
        self._options = options or PATIENT

    @cached_property
    def study(self) -> PhantomStudy:
        """The generated CT and its RT Structure Set."""
        return write_phantom_study(self._images, self._options)

    @cached_property
    def doses(self) -> PhantomDose:
        """The RT Plan and RT Dose of the study."""
        return write_phantom_dose(self.study, spacing=DOSE_SPACING)

    @cached_property
    def series(self) -> SortedSeries:
        """The CT series, with absolute paths."""
        return series_of_folder(self._images, self.study.series_instance_uid)

    @cached_property
    def _cohort(self) -> Path:
        """The treatment of the patient, as the cohort of the runs."""
        _ = self.doses
        path, file = self._scratch / "treatments.parquet", self._scratch / "catalog.duckdb"
        steps.index([self._images], file, collection_id="ctenrich_samples")
        catalog = FolderCatalog(file)
        try:
            write_treatments(make_treatments(catalog, TreatmentRequest()), path)
        finally:
            catalog.close()
        return path

    @cached_property
    def _binary(self) -> Run:
        settings = replace(Settings(), doses=replace(Settings().doses, enabled=True))
        return self._run("binary", settings, bodypart="demo-bodypart")

    @cached_property
    def _label_map(self) -> Run:
        return self._run("label_map", replace(Settings(), encode=replace(Settings().encode, seg_type="LABELMAP")))

    @cached_property
    def _intensity(self) -> Run:
        path = self._scratch / "intensity.json"
        write_bytes(path, json.dumps(INTENSITY).encode())
        return self._run("intensity", replace(Settings(), measure=replace(Settings().measure, radiomics=str(path))))

    @cached_property
    def _features(self) -> Run:
        model = write_sample_network(self._scratch / "network")
        settings = replace(Settings(), features=FeaturesSettings(models=(f"deep:{model}",)))
        return self._run("features", replace(settings, segment=SegmentSettings(device="cpu", threads=1)))

    @cached_property
    def _harmonised(self) -> Run:
        """The masks of the SEG again, with the volumes of the phantom's truth as stated measurements."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("name", "original_shape_VoxelVolume"))
        voxel = self._options.pixel_spacing[0] * self._options.pixel_spacing[1] * self._options.slice_spacing
        for name, mask in self.study.phantom.masks.items():
            writer.writerow((name, f"{int(mask.sum()) * voxel:.3f}"))
        table = self._scratch / "truth.csv"
        write_bytes(table, text.getvalue().encode())
        seg = self._scratch / "masks" / "seg.dcm"
        write_bytes(seg, self.binary_object("seg").read_bytes())
        options = HarmoniseOptions(
            name="truth", algorithm_type="MANUAL", algorithm_name="phantom", measurements=(table,)
        )
        request = HarmoniseSource(folder=seg.parent, source=self._images)
        return _finished(*steps.harmonise(request, self._scratch / "harmonised", options))

    @property
    def has_pyradiomics(self) -> bool:
        """Whether pyradiomics is installed, which measures intensities and textures."""
        return find_spec("radiomics") is not None

    def _run(self, name: str, settings: Settings, bodypart: str = "none") -> Run:
        run = steps.start(
            self._cohort, self._scratch / name, segmenters=["expert"], bodypart=bodypart, settings=settings
        )
        return _finished(run, steps.run_all(run))

    def binary_object(self, kind: str) -> Path:
        """Return an object of the run with the default settings, doses and body part regression."""
        return _object_of(self._binary, kind)

    def label_map_object(self, kind: str) -> Path:
        """Return an object of the run whose SEG is a label map."""
        return _object_of(self._label_map, kind)

    def intensity_report(self) -> Path:
        """Return the shape SR that also has intensities and textures."""
        return _object_of(self._intensity, "shape_sr")

    def features_report(self) -> Path:
        """Return the SR of the feature vectors."""
        return _object_of(self._features, "features_sr")

    def harmonised_object(self, kind: str) -> Path:
        """Return an object of the run whose masks and volumes come as files of another program."""
        return _object_of(self._harmonised, kind)

    def structure_set(self) -> Path:
        """Return the masks as an RT Structure Set."""
        options = StructureSetOptions(names=names_of_tg263())
        folder = self._scratch / "structure_sets"
        found = export_structure_sets(self._binary.workspace, folder, settings=Settings(), options=options)
        return _only([one.path for one in found if one.path is not None], "structure set")

    def isodoses(self, form: IsodoseForm, levels: Sequence[float] = (20.0, 40.0, 60.0)) -> Path:
        """Write isodoses.

        Parameters
        ----------
        form : {"rtstruct", "seg"}
            RT Structure Set, or Segmentation.
        levels : sequence of float
            Gy.

        Returns
        -------
        Path
        """
        path = self._scratch / f"isodoses_{form}.dcm"
        write_isodoses(read_dose(self.doses.dose), self.series, levels, path, form=form)
        return path

    @cached_property
    def maps(self) -> SampleMaps:
        """Values per voxel of the study, as objects."""
        return SampleMaps(self.study, self._images, self._scratch / "maps")


def _finished(run: Run, summary: RunSummary) -> Run:
    if summary.exit_code:
        raise EncodingError(Reason.PROOF_FAILED, "an object of the samples could not be made or is not proven")
    return run


def _object_of(run: Run, kind: str) -> Path:
    store = SeriesStore(run.workspace)
    paths = [
        run.workspace.resolve(uid, one.path)
        for uid in store.series()
        for product in store.products(uid)
        for one in store.objects(uid, product).objects
        if one.kind == kind
    ]
    return _only(paths, kind)


def _only(paths: Sequence[Path], what: str) -> Path:
    if len(paths) != 1:
        raise EncodingError(Reason.NOT_FOUND, f"the run of the samples has {len(paths)} objects of the kind {what}")
    return paths[0]

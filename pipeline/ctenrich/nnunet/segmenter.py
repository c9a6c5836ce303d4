"""nnU-Net models as segmenters: open a model by name or folder, write masks on the source grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from ctenrich.errors import ModelError, UsageError
from ctenrich.inference.process import prepare_process
from ctenrich.inference.registry import ModelKind, ResolvedModel, resolve_model
from ctenrich.inference.segmentation import Classes, CtAnswer, class_names, segment_ct
from ctenrich.nnunet.conventions import Conventions, axes_before, stated_conventions, unknown_axes
from ctenrich.nnunet.engine import Engine, LabelMapResult
from ctenrich.nnunet.memory import check_memory, device_memory
from ctenrich.nnunet.plans import ModelPlan, fail
from ctenrich.nnunet.preprocess import Axes, canonical_axes
from ctenrich.nnunet.probabilities import Probabilities
from ctenrich.nnunet.reference import ReferenceEngine
from ctenrich.nnunet.store import StoredModel, load_weights, prepare
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.records import (
    Issue,
    Matrix4,
    ModelInfo,
    Product,
    ProductKind,
    SegmentMasks,
    SortedSeries,
    Volume,
)
from ctenrich.settings import SegmentSettings, Settings
from ctenrich.tools import need_package
from ctenrich.workspace import Workspace

__all__ = ["ChosenModel", "NnunetSegmenter", "choose_nnunet", "open_engine", "open_nnunet"]


def open_nnunet(
    model: str,
    *,
    configuration: str | None = None,
    folds: tuple[str, ...] | None = None,
    mirror: bool = True,
    conventions: Conventions | None = None,
    settings: Settings,
) -> NnunetSegmenter:
    """Load an nnU-Net model; every fault of the model is found here, before any series is touched.

    Parameters
    ----------
    model : str
        Name in the registry, name given at import, or path of a model folder (nnU-Net v2, or v1's export).
    configuration : str, optional
        2d, 3d_lowres, 3d_fullres or 3d_cascade_fullres; needed where the model has several.
    folds : tuple of str, optional
        ``("0", "1")`` or ``("all",)``; by default all numbered folds that there are, else ``all``.
    mirror : bool
        Average over mirrored passes (test-time augmentation) along the axes that training mirrored.
    conventions : Conventions, optional
        Axes and step; whatever it does not state is what the model's record, files or name state, and the step of
        `settings` where those state none (see `ctenrich.nnunet.conventions`).
    settings : Settings
        `segment`: device, engine, precision, step, batch, threads.

    Returns
    -------
    NnunetSegmenter

    Raises
    ------
    ModelError
        NOT_FOUND, BAD_MODEL, UNSAFE_WEIGHTS, HASH_MISMATCH, LICENCE_NOT_ACCEPTED, WRONG_MODALITY, UNMAPPED_LABEL, or
        UNKNOWN_AXES if nothing states the axes.
    UsageError
        BAD_SETTINGS; BAD_PARAMETER if the model has several configurations and none was chosen; MISSING_EXTRA if a
        cascade or the reference engine is asked for without the libraries of nnU-Net.
    """
    found = choose_nnunet(model, configuration=configuration, folds=folds, conventions=conventions)
    stored, used = found.stored, found.conventions
    _check_libraries(stored.plan(found.configuration), settings)
    segment = settings.segment if used.step is None else replace(settings.segment, step_size=used.step)
    engines = [
        open_engine(stored, n, _choose_folds(stored, n, found.folds), mirror=mirror, settings=segment)
        for n in found.chain
    ]
    axes = "" if used.axes == axes_before(found.model) else used.axes
    product = Product(ProductKind.NNUNET, stored.name, found.configuration, found.folds, mirror, axes, used.step)
    return NnunetSegmenter(product, _nnunet_model_info(found.model, stored, product), found.names, engines, used.axes)


@dataclass(frozen=True, kw_only=True)
class ChosenModel:
    """An nnU-Net model with everything that is decided before its weights are loaded."""

    model: ResolvedModel
    stored: StoredModel
    conventions: Conventions
    """Axes, and the step where one is stated."""
    configuration: str
    folds: tuple[str, ...]
    names: Classes
    chain: tuple[str, ...]
    """Configurations to run, one after the other; more than one for a cascade."""


def choose_nnunet(
    model: str,
    *,
    configuration: str | None = None,
    folds: tuple[str, ...] | None = None,
    conventions: Conventions | None = None,
) -> ChosenModel:
    """Find, convert and check an nnU-Net model without loading its weights.

    Parameters
    ----------
    model : str
    configuration : str, optional
    folds : tuple of str, optional
    conventions : Conventions, optional
        All as in `open_nnunet`.

    Returns
    -------
    ChosenModel

    Raises
    ------
    ModelError
        As `open_nnunet`.
    UsageError
        BAD_PARAMETER if the model has several configurations and none was chosen.
    """
    resolved = resolve_model(model)
    if resolved.entry is not None and resolved.entry.kind is ModelKind.BODYPART:
        fail(f"{resolved.name} is a body part regression model, not a segmentation model")
    stored = prepare(resolved)
    used = _complete_conventions(resolved, conventions or Conventions())
    name = _choose_configuration(stored, configuration)
    return ChosenModel(
        model=resolved,
        stored=stored,
        conventions=used,
        configuration=name,
        folds=_choose_folds(stored, name, folds),
        names=class_names(stored.plan(name).labels.names, stored.name),
        chain=tuple(_cascade_chain(stored, name)),
    )


def _complete_conventions(model: ResolvedModel, given: Conventions) -> Conventions:
    """Axes and step that are used: the given ones, else those that are stated."""
    stated = stated_conventions(model)
    axes = given.axes or stated.axes
    if not axes:
        raise unknown_axes(model)
    return Conventions(axes=axes, step=stated.step if given.step is None else given.step)


def _choose_configuration(stored: StoredModel, wanted: str | None) -> str:
    known = stored.configurations
    if wanted is None:
        if len(known) > 1:
            message = f"{stored.name} has several configurations: {', '.join(known)}"
            raise UsageError(Reason.BAD_PARAMETER, message, f"choose one: nnunet:{stored.name}:{known[0]}")
        return known[0]
    if wanted not in known:
        raise ModelError(
            Reason.BAD_MODEL, f"{stored.name} has no configuration {wanted}", f"it has: {', '.join(known)}"
        )
    return wanted


def _choose_folds(stored: StoredModel, configuration: str, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    known = stored.folds(configuration)
    if wanted is None:
        numbered = tuple(sorted((f for f in known if f.isdigit()), key=int))
        return numbered or known[:1]
    for fold in wanted:
        if fold not in known:
            fail(f"the model {stored.name} has no fold {fold} of {configuration}", f"it has: {', '.join(known)}")
    return tuple(sorted(set(wanted), key=lambda f: (not f.isdigit(), int(f) if f.isdigit() else 0, f)))


def _cascade_chain(stored: StoredModel, configuration: str) -> list[str]:
    """The configurations to run, one after the other: a cascade needs the stage before it."""
    chain = [configuration]
    while previous := stored.plan(chain[0]).previous:
        if previous not in stored.configurations or previous in chain:
            fail(f"{configuration} of {stored.name} needs the configuration {previous}, which is missing")
        chain.insert(0, previous)
    return chain


def _check_libraries(plan: ModelPlan, settings: Settings) -> None:
    """Cascades resample labels with the functions of nnU-Net's own libraries."""
    if settings.segment.engine == "reference":
        need_package("nnunetv2", extra="reference", purpose='segment.engine = "reference"')
    if plan.previous:
        package = "batchgenerators" if plan.version == 1 else "nnunetv2"
        need_package(package, extra="reference", purpose="a cascade")


def open_engine(
    stored: StoredModel, configuration: str, folds: tuple[str, ...], *, mirror: bool, settings: SegmentSettings
) -> Any:
    """Load one configuration of a model into the engine that the settings name.

    Parameters
    ----------
    stored : StoredModel
    configuration : str
    folds : tuple of str
        Names of folds that the configuration has.
    mirror : bool
        Whether to average over mirrored passes.
    settings : SegmentSettings
        Engine, device, precision, step, batch, threads.

    Returns
    -------
    Engine or ReferenceEngine

    Raises
    ------
    ModelError
        HASH_MISMATCH or BAD_MODEL.
    UsageError
        BAD_SETTINGS for an unknown engine, device or precision.
    """
    prepare_process()
    plan = stored.plan(configuration)
    weights = {fold: load_weights(stored, configuration, fold) for fold in folds}
    if settings.engine == "reference":
        return ReferenceEngine(plan, stored.meta["configurations"][configuration], weights, settings, mirror)
    if settings.engine != "fast":
        raise UsageError(Reason.BAD_SETTINGS, f"unknown engine {settings.engine!r}", "fast or reference")
    return Engine(plan, weights, settings, mirror)


def _nnunet_model_info(resolved: ResolvedModel, stored: StoredModel, product: Product) -> ModelInfo:
    entry = resolved.entry
    return ModelInfo(
        name=resolved.name,
        version=entry.version if entry else "",
        sha256=stored.identity(product.configuration, product.folds),
        configuration=product.configuration,
        folds=product.folds,
        mirror=product.mirror,
        licence=entry.licence if entry else "",
        citation=entry.citation if entry else "",
        source_url=(entry.source or entry.url) if entry else "",
        demo=resolved.demo,
    )


@dataclass(frozen=True)
class NnunetSegmenter:
    """A loaded model; implements `ctenrich.inference.segmenter.Segmenter`."""

    product: Product
    info: ModelInfo
    names: Classes
    engines: list[Any]
    """One a stage; more than one for a cascade."""
    axes: str
    """Axes of the network: RAS, LAS or LPS."""
    issues: tuple[Issue, ...] = ()
    """Warnings about the model, which every series gets."""

    def turned(self, affine_lps: Matrix4) -> Axes:
        """Exchange and flips of axes that turn an array [k, j, i] with this affine to the network's axes."""
        return canonical_axes(affine_lps, self.axes)

    def segment(
        self,
        inputs: Mapping[str, Volume],
        series: SortedSeries,
        *,
        settings: Settings,
        workspace: Workspace,
        progress: Progress = SILENT,
    ) -> SegmentMasks:
        """Segment one series (see `ctenrich.inference.segmenter.Segmenter.segment`).

        Raises
        ------
        InputError
            WRONG_MODALITY without a CT volume in HU; HU_RANGE if it holds values that are not numbers;
            OUT_OF_MEMORY, before the network runs where the forecast shows it.
        """

        def label(volume: Volume, array: NDArray[Any]) -> CtAnswer:
            axes = self.turned(volume.affine_lps)
            self._check_memory(array, axes, volume.spacing, settings)
            keep: Probabilities | None = None
            if settings.segment.probabilities:
                path = workspace.product_dir(volume.series_instance_uid, self.product) / "masks" / "probabilities.npy"
                keep = Probabilities(path, self.engines[-1].plan, axes, array.shape)
            answer = self.label(array, axes, volume.spacing, keep=keep, progress=progress)
            return CtAnswer(
                labels=axes.back(answer.labels),
                classes=self.names,
                timings=answer.timings,
                issues=self.issues,
                agreement=answer.agreement,
                probabilities_path=keep.save(workspace, volume.series_instance_uid) if keep is not None else None,
                classes_overlap=self.engines[-1].plan.labels.regions,
            )

        return segment_ct(inputs, workspace, self.product, self.info, label)

    def _check_memory(self, array: NDArray[Any], axes: Axes, spacing: tuple[float, ...], settings: Settings) -> None:
        """Refuse a volume that cannot fit, before anything is computed; the reference engine has its own arrays."""
        turned = axes.turn(array)
        turned_spacing = tuple(spacing[a] for a in axes.order)
        for engine in self.engines:
            if isinstance(engine, Engine):
                limits = (settings.run.worker_memory(), device_memory(engine.device))
                check_memory(engine.plan, turned, turned_spacing, folds=len(engine.networks), limits=limits)

    def label(
        self,
        array: NDArray[Any],
        axes: Axes,
        spacing: tuple[float, ...],
        *,
        keep: Any = None,
        progress: Progress = SILENT,
    ) -> LabelMapResult:
        """Segment an array with all stages of the model.

        Parameters
        ----------
        array : array, [k, j, i], HU
        axes : Axes
            From the array to the network's axes (see `turned`).
        spacing : (k, j, i), mm
        keep : callable, optional
            Receives the last stage's probabilities (see `ctenrich.nnunet.postprocess.to_source`).
        progress : Progress

        Returns
        -------
        LabelMapResult
            On the network's axes [z, y, x].
        """
        turned = axes.turn(array)
        turned_spacing = tuple(spacing[a] for a in axes.order)
        previous: LabelMapResult | None = None
        for engine in self.engines:
            last = engine is self.engines[-1]
            before = previous.labels if previous is not None else None
            sink = keep if last else None
            previous = engine.label(turned, turned_spacing, previous=before, keep=sink, progress=progress)
        assert previous is not None
        return previous

"""The reference engine: nnunetv2's own preprocessing, predictor and export, for comparisons."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctenrich.errors import UsageError
from ctenrich.inference.device import check_precision, choose_device
from ctenrich.inference.threads import torch_threads
from ctenrich.nnunet.engine import LabelMapResult
from ctenrich.nnunet.plans import ModelPlan, fail
from ctenrich.nnunet.unet import library_network, load_into_library
from ctenrich.progress import SILENT, Progress
from ctenrich.reasons import Reason
from ctenrich.settings import SegmentSettings

if TYPE_CHECKING:
    import torch

__all__ = ["ReferenceEngine"]


class ReferenceEngine:
    """The reference engine; the same interface as `ctenrich.nnunet.engine.Engine`.

    Parameters
    ----------
    plan : ModelPlan
        Of an nnU-Net v2 model.
    source : mapping
        ``plans``, ``dataset`` and ``trainer`` as the model's own files have them.
    folds : mapping of fold to tensors
        As `ctenrich.nnunet.store.load_weights` returns them.
    settings : SegmentSettings
        Device, step, threads; always fp32 before the predictor's own rounding.
    mirror : bool
        Whether to average over mirrored passes.
    predictor : type, optional
        A subclass of nnunetv2's predictor to use in its place.

    Raises
    ------
    ModelError
        BAD_MODEL for an nnU-Net v1 model.
    UsageError
        BAD_SETTINGS for an unknown device or precision, or if probabilities are to be kept.
    """

    def __init__(
        self,
        plan: ModelPlan,
        source: Mapping[str, Any],
        folds: Mapping[str, Mapping[str, torch.Tensor]],
        settings: SegmentSettings,
        mirror: bool,
        predictor: Any = None,
    ) -> None:
        if plan.version != 2:
            fail("the reference engine runs nnU-Net v2 models only", 'use engine = "fast"')
        if settings.probabilities:
            raise UsageError(Reason.BAD_SETTINGS, "the reference engine does not keep probabilities")
        check_precision(settings.precision)
        self.plan = plan
        self.threads = settings.threads
        self.predictor, self.plans, self.configuration, self.dataset = _make_predictor(
            plan, source, settings, mirror, predictor
        )
        self.predictor.list_of_parameters = [_full_state(self.predictor.network, weights) for weights in folds.values()]

    def use(self, predictor: Any) -> None:
        """Replace the predictor's class by a subclass of nnunetv2's predictor."""
        self.predictor.__class__ = predictor

    def label(
        self,
        array: NDArray[Any],
        spacing: tuple[float, ...],
        *,
        previous: NDArray[Any] | None = None,
        keep: Any = None,
        progress: Progress = SILENT,
    ) -> LabelMapResult:
        """Segment one volume (see `ctenrich.nnunet.engine.Engine.label`).

        Parameters
        ----------
        array : array, [z, y, x], HU
            On canonical axes.
        spacing : (z, y, x), mm
        previous : None
            Cascades are not supported.
        keep : None
            Probabilities are not kept.
        progress : Progress
            Not used: the predictor does not report progress.

        Returns
        -------
        LabelMapResult
            On the grid of `array`.

        Raises
        ------
        ModelError
            BAD_MODEL for a cascade.
        """
        from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
        from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

        if previous is not None:
            fail("the reference engine does not run cascades", 'use engine = "fast"')
        with torch_threads(self.threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch

            start = time.perf_counter()
            properties: dict[str, Any] = {"spacing": [float(v) for v in spacing]}
            image = np.ascontiguousarray(array, np.float32)[None]
            preprocessor = DefaultPreprocessor(verbose=False)
            data, _, properties = preprocessor.run_case_npy(
                image, None, properties, self.plans, self.configuration, self.dataset
            )
            ready = time.perf_counter()
            logits = self.predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
            predicted = time.perf_counter()
            labels = convert_predicted_logits_to_segmentation_with_correct_shape(
                logits, self.plans, self.configuration, self.predictor.label_manager, properties
            )
            done = time.perf_counter()
        timings = {"preprocess": ready - start, "network": predicted - ready, "export": done - predicted}
        return LabelMapResult(np.asarray(labels), timings)


def _make_predictor(
    plan: ModelPlan, source: Mapping[str, Any], settings: SegmentSettings, mirror: bool, predictor_class: Any
) -> Any:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        device = choose_device(settings.device)
        predictor = (predictor_class or nnUNetPredictor)(
            tile_step_size=settings.step_size,
            use_gaussian=True,
            use_mirroring=mirror and bool(plan.mirror_axes),
            perform_everything_on_device=device.type == "cuda",
            device=device,
            verbose=False,
            allow_tqdm=False,
        )
        plans = PlansManager(dict(source["plans"]))
        configuration = plans.get_configuration(plan.configuration)
        network = library_network(plan.network)
        dataset = dict(source["dataset"])
        axes = plan.mirror_axes or None
        predictor.manual_initialization(network, plans, configuration, None, dataset, str(source["trainer"]), axes)
    return predictor, plans, configuration, dataset


def _full_state(network: Any, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    load_into_library(network, weights)
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}

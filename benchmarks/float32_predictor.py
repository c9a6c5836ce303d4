"""nnunetv2's predictor with its two accumulators and its Gaussian in single precision, as reference.

The unmodified predictor accumulates logits and weights in half precision, on a CPU too. Here tiles, network and order
are the same; only the number format of the accumulators differs.
"""

from __future__ import annotations

from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian

__all__ = ["Float32Predictor"]


class Float32Predictor(nnUNetPredictor):
    """The predictor with float32 accumulators."""

    @torch.inference_mode()
    def _internal_predict_sliding_window_return_logits(
        self, data: torch.Tensor, slicers: Any, do_on_device: bool = True
    ) -> torch.Tensor:
        where = self.device if do_on_device else torch.device("cpu")
        patch = tuple(self.configuration_manager.patch_size)
        weights = compute_gaussian(patch, 1.0 / 8, 10, dtype=torch.float32, device=where)
        total = torch.zeros((self.label_manager.num_segmentation_heads, *data.shape[1:]), device=where)
        norm = torch.zeros(data.shape[1:], device=where)
        for tile in slicers:
            one = data[tile][None].contiguous().to(self.device)
            total[tile] += self._internal_maybe_mirror_and_predict(one)[0].to(where) * weights
            norm[tile[1:]] += weights
        return total / norm

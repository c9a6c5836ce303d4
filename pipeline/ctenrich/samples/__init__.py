"""Sample objects of every kind that ctenrich writes, with what other programs must show of them."""

from __future__ import annotations

from ctenrich.samples.kinds import SAMPLES, Sample
from ctenrich.samples.make import Samples, make_samples

__all__ = ["SAMPLES", "Sample", "Samples", "make_samples"]

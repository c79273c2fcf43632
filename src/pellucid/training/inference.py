"""Evaluation by several processes: each asks the network about some of the pictures, and all know all answers."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pellucid.bundle.recogniser import BATCH, infer
from pellucid.data.batches import pieces
from pellucid.data.images import Lazy
from pellucid.data.preprocess import Preprocess
from pellucid.training import processes


def infer_together(
    model: nn.Module, preprocess: Preprocess, pixels_nhwc: NDArray[np.uint8] | Lazy, classes: int
) -> NDArray[np.float64]:
    """What `infer` gives, and to the bit: the pictures are shared in whole batches of it, and none is counted twice."""
    if not processes.several():
        return infer(model, preprocess, pixels_nhwc)
    n = len(pixels_nhwc)
    shares = pieces(math.ceil(n / BATCH), processes.size())

    def rows(process: int) -> slice:
        return slice(min(n, shares[process].start * BATCH), min(n, shares[process].stop * BATCH))

    logits_nk, own = torch.zeros((n, classes), dtype=torch.float64), rows(processes.rank())
    if own.start < own.stop:
        logits_nk[own] = torch.from_numpy(infer(model, preprocess, pixels_nhwc, own))
    return processes.gathered(logits_nk, rows).numpy()

"""How a batch of pictures becomes logits in training: in one engine's arithmetic, on one process or several."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pellucid.data.preprocess import Preprocess
from pellucid.recipe import Engine

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.float32}


class Answers(nn.Module):
    """A network as what it gives in training: its logits, and those of its auxiliary heads.

    A network with auxiliary heads (GoogLeNet) has a method `forward_with_auxiliary`, used in training alone.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_nchw: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits (N, classes) of normalised pictures."""
        with_auxiliary = getattr(self.model, "forward_with_auxiliary", None)
        return (self.model(x_nchw), []) if with_auxiliary is None else with_auxiliary(x_nchw)


def averaged(model: nn.Module, device: torch.device, *, whole: bool) -> DistributedDataParallel:
    """The network with its gradients averaged over all processes; their weights become those of process 0.

    Batch normalisation takes each process's own statistics. Without `whole`, there may be parameters that no answer
    depends on, which are then looked for at every step.
    """
    wrapped = DistributedDataParallel(
        Answers(model),
        device_ids=[device.index] if device.type == "cuda" else None,
        find_unused_parameters=not whole,
    )
    # As an attribute, since the argument has another name from torch 2.13 on.
    wrapped.broadcast_buffers = False
    return wrapped


@dataclass(frozen=True)
class Forward:
    """How a batch of uint8 pictures becomes logits in training, in one engine's arithmetic and layout."""

    answers: nn.Module
    """`Answers`, or what stands around it."""
    preprocess: Preprocess
    engine: Engine

    def __call__(self, x_nhwc: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits (N, classes), float32 or float64, of uint8 pictures (N, H, W, C); and those of auxiliary heads."""
        x_nchw = self.preprocess.normalise(x_nhwc, DTYPES[self.engine.precision])
        if self.engine.layout == "nchw":
            # Through one flat view, since with one channel the NHWC strides count as contiguous too, and torch would
            # take them for channels last all the way through the network.
            x_nchw = x_nchw.contiguous().view(-1).view(x_nchw.shape)
        with self._arithmetic(x_nhwc.device.type):
            logits_nk, auxiliary = self.answers(x_nchw)
        if self.engine.precision == "bfloat16":
            return logits_nk.float(), [logits.float() for logits in auxiliary]
        return logits_nk, auxiliary

    def _arithmetic(self, device: str) -> AbstractContextManager[object]:
        if self.engine.precision != "bfloat16":
            return nullcontext()
        return torch.autocast(device, torch.bfloat16)

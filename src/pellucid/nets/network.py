"""What every builder gives: modules in a row under their names; and weights that follow from a seed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections import OrderedDict
    from collections.abc import Iterator

    from pellucid.nets.sizes import Shape


class Network(nn.Sequential):
    """Modules in a row under their names, and what they were built from (unknown of a slice, `network[:3]`)."""

    auxiliary_loss_weight: float = 0.0
    """What the loss of each auxiliary head counts in training; 0 where the network has none."""

    def __init__(
        self,
        modules: OrderedDict[str, nn.Module],
        text: str = "",
        image: Shape | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__(modules)
        self.text = text
        """The notation; of a network that it cannot write, the name with its options."""
        self.image = image
        self.classes = classes

    def forward_with_auxiliary(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The logits of a batch, and those of each auxiliary head: none, but of GoogLeNet.

        A training loop adds `auxiliary_loss_weight` times the loss of each of the latter to the loss of the first.
        """
        return self(x), []

    def look_at(self, x_nchw: torch.Tensor) -> None:
        """Take from training images (N, C, H, W), as they are shown to it, what is not learnt by steps.

        For a training loop to call before its first step; of most networks nothing. `quick` sets its stem.
        """


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Random numbers that follow from `seed`, the generator left as it was; without a seed, random numbers as usual."""
    with contextlib.ExitStack() as stack:
        if seed is not None:
            # Weights are drawn on the processor wherever they go later, so that a seed means the same everywhere, and
            # torch.manual_seed is not used because it would seed every accelerator as well.
            stack.enter_context(torch.random.fork_rng(devices=[]))
            stack.enter_context(torch.device("cpu"))
            torch.default_generator.manual_seed(seed)
        yield

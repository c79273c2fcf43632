"""The layer PyTorch lacks: a convolution whose `same` padding works at any stride."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from pellucid.nets.sizes import Padding, padding_sides, spread


class SameConv2d(nn.Conv2d):
    """2-D convolution with Keras's `same` padding: output ⌈W/S⌉ at any stride, kernel and dilation.

    The odd row of padding goes right and bottom. With a stride above 1 how much is needed depends on the size of the
    map, so it is worked out in each pass. Where it is the same on both sides, the convolution pads by itself.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """(N, C, H, W) to (N, O, ⌈H/S⌉, ⌈W/S⌉)."""
        (top, bottom), (left, right) = (
            padding_sides(size, kernel, stride=stride, padding="same", dilation=dilation)
            for size, kernel, stride, dilation in zip(
                input.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True
            )
        )
        if top != bottom or left != right:
            # Only the odd rows, which never stand before: the convolution adds the rest.
            input = F.pad(input, (0, right - left, 0, bottom - top))  # noqa: A001
        return F.conv2d(input, self.weight, self.bias, self.stride, (top, left), self.dilation, self.groups)

    def extra_repr(self) -> str:
        """As `nn.Conv2d` writes itself, with `padding=same`."""
        return f"{super().extra_repr()}, padding=same"  # type: ignore[no-untyped-call]


def convolution(*, kernel_size: int, stride: int, padding: Padding, dilation: int, **settings: Any) -> nn.Conv2d:
    """The plainest module that computes this convolution.

    `same` at stride 1 over an odd span is the same row of padding on both sides at any map size, which `nn.Conv2d` has.
    """
    window: dict[str, Any] = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
    if padding != "same":
        return nn.Conv2d(**window, padding=0 if padding == "valid" else padding, **settings)
    if stride == 1 and spread(kernel_size, dilation) % 2 == 1:
        return nn.Conv2d(**window, padding=spread(kernel_size, dilation) // 2, **settings)
    return SameConv2d(**window, **settings)

"""The layers PyTorch lacks: a convolution whose `same` padding works at any stride, SoftPool, pyramid pools, scale."""

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


class Dropout(nn.Dropout):
    """Inverted dropout (Srivastava et al. 2014), its mask drawn from a few bits a number.

    A processor draws random numbers one after the other, whatever its threads, so torch's own dropout, with a whole
    draw for each number, was a sixth of a training step of `cifar-cnn` on two cores. Here each 64-bit draw decides for
    four numbers, or for eight where the probability is a whole number of 256ths (½ and ¼ are). The scale is exactly one
    over the share kept, so the expectation is that of torch's.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """The input, each number zeroed with probability p and the others scaled up; itself in evaluation."""
        exporting = torch.compiler.is_compiling() or torch.compiler.is_exporting()
        if not self.training or self.p in {0, 1} or input.device.type != "cpu" or self.inplace or exporting:
            # In a graph it stays the one operation that readers of graphs know.
            return super().forward(input)
        lane, levels = (torch.int8, 2**8) if (self.p * 2**8).is_integer() else (torch.int16, 2**16)
        kept = levels - round(self.p * levels)
        count = input.numel()
        lanes = 8 if lane == torch.int8 else 4
        bits = torch.empty(-(-count // lanes), dtype=torch.int64).random_(-(2**63), None).view(lane)[:count]
        noise = torch.empty_like(input)
        # In the order of memory, which is the input's own: no number cares which bits are its.
        noise.as_strided((count,), (1,)).copy_(bits < kept - levels // 2).mul_(levels / kept)
        return input * noise


class SoftPool2d(nn.Module):
    """Each number under the window weighs as its own exponential: Σ eˣ·x / Σ eˣ, between the mean and the largest.

    Stergiou, Poppe and Kalliatakis, "Refining activation downsampling with SoftPool", 2021. Every number has a
    gradient, the largest the most.
    """

    padding = 0

    def __init__(self, kernel_size: int, stride: int | None = None) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride or kernel_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C, ⌊(H − K)/S⌋ + 1, ⌊(W − K)/S⌋ + 1)."""
        K, S = self.kernel_size, self.stride
        windows_ncijk = x.unfold(2, K, S).unfold(3, K, S).flatten(4)
        # The softmax of each window takes its own largest number away first: no sum overflows, and none becomes 0.
        return (windows_ncijk.softmax(-1) * windows_ncijk).sum(-1)

    def extra_repr(self) -> str:
        """As torch's pools write themselves."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}"


class Scale(nn.Module):
    """Every number times the same one, which is not learnt."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input times the factor."""
        return x * self.factor

    def extra_repr(self) -> str:
        """The factor, to four digits."""
        return f"{self.factor:.4g}"


class SpatialPyramidPool2d(nn.Module):
    """A map of any size as one row of fixed length: its pools to L×L for each level L, behind one another.

    He et al., "Spatial pyramid pooling in deep convolutional networks for visual recognition", 2014: bin i of L reaches
    from row ⌊i·H/L⌋ to ⌈(i + 1)·H/L⌉, so that a level finer than the map repeats its numbers.
    """

    def __init__(self, levels: tuple[int, ...], *, mean: bool = False) -> None:
        super().__init__()
        self.levels, self.mean = tuple(levels), mean

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C·ΣL²): the channels of the first level, then those of the next."""
        pool = F.adaptive_avg_pool2d if self.mean else F.adaptive_max_pool2d
        return torch.cat([pool(x, level).flatten(1) for level in self.levels], 1)

    def extra_repr(self) -> str:
        """The levels, and what is taken of a bin."""
        return f"levels={self.levels}" + (", mean=True" if self.mean else "")

r"""Pooling: one number for each window. The maximum, the average, and the soft maximum.

Each output looks at the window x_k (of K·L numbers) of its own channel, placed as in `convolution`.

- **max** y = max_k x_k. Only the winner moves y, so ∂y/∂x_k is 1 for the winner and 0 for the others (of several equal
  ones the first, in reading order). Padding counts as −∞: it never wins.
- **average** y = Σ_k x_k / D. Every slope is 1/D. D = K·L, the padding counted as zeros, or only as many as lie on the
  image (`count_padding=False`).
- **soft** y = Σ_k p_k·x_k with p_k = e^{x_k}/Σ e^{x_m}: between the two, and smooth. With ∂p_m/∂x_k = p_m(δ_mk − p_k):
  ∂y/∂x_k = p_k + Σ_m x_m·p_m(δ_mk − p_k) = p_k·(1 + x_k − y).

The gradient of a number adds up over all windows that cover it: ∂L/∂x = Σ ∂L/∂y · ∂y/∂x.

>>> x = np.array([[1.0, 3.0], [2.0, 0.0]]).reshape(1, 1, 2, 2)
>>> max_forward(x, 2)[0].item(), average_forward(x, 2)[0].item(), round(soft_forward(x, 2)[0].item(), 4)
(3.0, 1.5, 2.4927)

`ceil` lets a last window begin on the image (or its left padding) and run over the edge: ⌈·⌉ in place of ⌊·⌋.

Axes: x N C H W, y N C I J. Sources: LeCun et al. 1998 (average); Ranzato et al. 2007 (max); Stergiou et al. 2021
(soft).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pellucid.textbook.arrays import (
    Pair,
    covers,
    crop_planes,
    fold,
    mesh,
    out_size,
    pad_planes,
    pair,
    sides,
    taps,
    windows,
)
from pellucid.textbook.operation import Argument, Attribute, Operation
from pellucid.textbook.terms import Array, Group, Index, Terms, check_index, gather, grid, plain, summed, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Windows:
    """Where the windows lie on an image of `shape`: `pads` with what `ceil` adds, `out` the output's size."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    asked: tuple[Pair, Pair]
    pads: tuple[Pair, Pair]
    shape: Pair
    out: Pair

    def of(self, x_nchw: Array, value: float) -> Array:
        """The windows of x, (N, C, I, J, K, L), with `value` beyond its edge."""
        view = windows(pad_planes(x_nchw, self.pads, value), self.kernel, self.stride, self.dilation)
        return view[:, :, : self.out[0], : self.out[1]]

    def back(self, d_windows: Array) -> Array:
        """The gradient of x from the gradients of its windows."""
        (top, bottom), (left, right) = self.pads
        padded = (self.shape[0] + top + bottom, self.shape[1] + left + right)
        return crop_planes(fold(d_windows, padded, self.stride, self.dilation), self.pads)

    def members(self, index: Index) -> Array:
        """The pixels of the image in the window of output (n, c, i, j)."""
        n, c, i, j = index
        _, h = taps(i, self.kernel[0], self.stride[0], self.pads[0][0], self.dilation[0], self.shape[0])
        _, w = taps(j, self.kernel[1], self.stride[1], self.pads[1][0], self.dilation[1], self.shape[1])
        return grid(n, c, h, w)

    def outputs(self, index: Index) -> tuple[Array, Array]:
        """The outputs whose windows cover pixel (n, c, h, w), and at which place k·L + l of the window."""
        n, c, h, w = index
        k, i = covers(h, self.kernel[0], self.stride[0], self.pads[0][0], self.dilation[0], self.out[0])
        m, j = covers(w, self.kernel[1], self.stride[1], self.pads[1][0], self.dilation[1], self.out[1])
        (k1, m1), (i1, j1) = mesh(k, m), mesh(i, j)
        return np.stack([np.full_like(i1, n), np.full_like(i1, c), i1, j1], axis=1), k1 * self.kernel[1] + m1


def place(
    x_nchw: Array, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> Windows:
    """The windows for these settings; the stride is the kernel's size unless given."""
    if x_nchw.ndim != 4:
        raise ValueError(f"x has shape {x_nchw.shape}, but pooling takes (N, C, H, W)")
    size = pair(kernel, "kernel", 1)
    step = size if stride is None else pair(stride, "stride", 1)
    asked, apart = sides(padding), pair(dilation, "dilation", 1)
    shape = (int(x_nchw.shape[2]), int(x_nchw.shape[3]))
    pads, out = [], []
    for a, axis in enumerate(("height", "width")):
        before, after = asked[a]
        if max(before, after) > size[a] // 2:
            raise ValueError(
                f"padding {asked[a]} is more than half the kernel {size[a]}: a window could miss the image"
            )
        count = out_size(shape[a], size[a], step[a], asked[a], apart[a], axis)
        if ceil:
            reach = apart[a] * (size[a] - 1) + 1
            count = -((reach - shape[a] - before - after) // step[a]) + 1
            # A window that begins beyond the image and its left padding would see nothing.
            count -= (count - 1) * step[a] >= shape[a] + before
            after = max(after, (count - 1) * step[a] + reach - shape[a] - before)
        pads.append((before, after))
        out.append(count)
    return Windows(size, step, apart, asked, (pads[0], pads[1]), shape, (out[0], out[1]))


# --- max ----------------------------------------------------------------------------------------------------------


class KeptMax(NamedTuple):
    """What the way back needs: which place of each window won, (N, C, I, J)."""

    winner: Array
    windows: Windows


def max_forward(x_nchw: Array, kernel: Any, **settings: Any) -> tuple[Array, KeptMax]:
    """The largest of each window; keeps which one it was."""
    where = place(x_nchw, kernel, **settings)
    view = where.of(x_nchw, -np.inf)
    flat = view.reshape(*view.shape[:4], -1)
    winner = flat.argmax(axis=-1)
    return np.take_along_axis(flat, winner[..., None], axis=-1)[..., 0], KeptMax(winner, where)


def max_backward(dy: Array, kept: KeptMax) -> dict[str, Array]:
    """The gradient goes to the winner."""
    kernel = kept.windows.kernel
    winners = kept.winner[..., None] == np.arange(kernel[0] * kernel[1])
    return {"x": kept.windows.back((dy[..., None] * winners).reshape(*dy.shape, *kernel))}


def max_terms(index: Index, x_nchw: Array, kernel: Any, **settings: Any) -> Terms:
    """The window's numbers; the winner has coefficient 1."""
    where = place(x_nchw, kernel, **settings)
    index = check_index(index, (*x_nchw.shape[:2], *where.out), "the output of max_pool")
    members = where.members(index)
    value = gather(x_nchw, members)
    group = Group("x", members, value, (np.arange(len(value)) == value.argmax()).astype(np.float64))
    return Terms((group,), "y[n,c,i,j] = max x[n,c,iS−P+kD,jS−P+lD]", float(np.abs(value).max()), "max")


def max_grad_terms(index: Index, wrt: str, dy: Array, x_nchw: Array, kernel: Any, **settings: Any) -> Terms:
    """The outputs that could have seen this number; coefficient 1 where it won."""
    where, outputs, at = _pulls(index, wrt, x_nchw, kernel, settings)
    view = where.of(x_nchw, -np.inf)[index[0], index[1], outputs[:, 2], outputs[:, 3]]
    size = where.kernel[0] * where.kernel[1]
    won = view.reshape(len(outputs), size).argmax(axis=1) == at
    return summed([plain("y.grad", outputs, dy, won)], "x.grad = Σ y.grad over the windows that this number won")


# --- average ------------------------------------------------------------------------------------------------------


class KeptAverage(NamedTuple):
    """What the way back needs: how many numbers each window counts, (I, J)."""

    counts: Array
    windows: Windows


def _counts(where: Windows, count_padding: bool) -> Array:
    """D of each window, (I, J): what `ceil` lets hang over the edge never counts, padding only if asked."""
    ones = np.ones((1, 1, *where.shape))
    beyond = tuple((a[0] - b[0], a[1] - b[1]) for a, b in zip(where.pads, where.asked, strict=True))
    framed = pad_planes(ones, where.asked, float(count_padding))
    view = windows(pad_planes(framed, (beyond[0], beyond[1])), where.kernel, where.stride, where.dilation)
    counts = view[0, 0, : where.out[0], : where.out[1]].sum(axis=(-2, -1))
    return np.asarray(counts)


def average_forward(
    x_nchw: Array, kernel: Any, *, count_padding: bool = True, **settings: Any
) -> tuple[Array, KeptAverage]:
    """The sum of each window over the number it counts; keeps the counts."""
    where = place(x_nchw, kernel, **settings)
    counts = _counts(where, count_padding).astype(x_nchw.dtype)
    return where.of(x_nchw, 0.0).sum(axis=(-2, -1)) / counts, KeptAverage(counts, where)


def average_backward(dy: Array, kept: KeptAverage) -> dict[str, Array]:
    """Each number of a window gets dy/D."""
    share = dy / kept.counts
    return {"x": kept.windows.back(np.broadcast_to(share[..., None, None], (*dy.shape, *kept.windows.kernel)))}


def average_terms(index: Index, x_nchw: Array, kernel: Any, *, count_padding: bool = True, **settings: Any) -> Terms:
    """The window's numbers, each with coefficient 1/D."""
    where = place(x_nchw, kernel, **settings)
    index = check_index(index, (*x_nchw.shape[:2], *where.out), "the output of average_pool")
    count = _counts(where, count_padding)[index[2], index[3]]
    return summed([plain("x", where.members(index), x_nchw, 1 / count)], "y[n,c,i,j] = Σ_k,l x[n,c,iS−P+k,jS−P+l]/D")


def average_grad_terms(
    index: Index, wrt: str, dy: Array, x_nchw: Array, kernel: Any, *, count_padding: bool = True, **settings: Any
) -> Terms:
    """The outputs whose windows cover this number, each with coefficient 1/D."""
    where, outputs, _ = _pulls(index, wrt, x_nchw, kernel, settings)
    counts = _counts(where, count_padding)[outputs[:, 2], outputs[:, 3]]
    return summed([plain("y.grad", outputs, dy, 1 / counts)], "x.grad[n,c,h,w] = Σ_i,j y.grad[n,c,i,j]/D")


# --- soft ---------------------------------------------------------------------------------------------------------


class KeptSoft(NamedTuple):
    """What the way back needs: each window, its weights p (both N, C, I, J, K, L), and y."""

    view: Array
    p: Array
    y: Array
    windows: Windows


def _shares(view: Array) -> Array:
    """Softmax over each window, (…, K, L)."""
    e = np.exp(view - view.max(axis=(-2, -1), keepdims=True))
    return np.asarray(e / e.sum(axis=(-2, -1), keepdims=True))


def soft_forward(x_nchw: Array, kernel: Any, *, stride: Any = None) -> tuple[Array, KeptSoft]:
    """Σ p·x over each window, p its softmax; keeps the windows, p and y."""
    where = place(x_nchw, kernel, stride)
    view = where.of(x_nchw, 0.0)
    p = _shares(view)
    y = (p * view).sum(axis=(-2, -1))
    return y, KeptSoft(view, p, y, where)


def soft_backward(dy: Array, kept: KeptSoft) -> dict[str, Array]:
    """Each number of a window gets dy·p·(1 + x − y)."""
    slope = kept.p * (1 + kept.view - kept.y[..., None, None])
    return {"x": kept.windows.back(dy[..., None, None] * slope)}


def soft_rule(groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
    """Σ eˣ·x / Σ eˣ, the largest taken off every exponent (it cancels)."""
    x = groups["x"].value
    e = np.exp(x - x.max())
    return {"total": float(e.sum()), "weighted": float((e * x).sum()), "y": float((e * x).sum() / e.sum())}


def soft_terms(index: Index, x_nchw: Array, kernel: Any, *, stride: Any = None) -> Terms:
    """The window's numbers, coefficient p·(1 + x − y)."""
    where = place(x_nchw, kernel, stride)
    index = check_index(index, (*x_nchw.shape[:2], *where.out), "the output of soft_pool")
    members = where.members(index)
    value = gather(x_nchw, members)
    p = np.exp(value - value.max()) / np.exp(value - value.max()).sum()
    slope = p * (1 + value - (p * value).sum())
    # e^(x − max) carries the rounding of its exponent, hence the spread.
    scale = float((p * np.abs(value) * (1 + value.max() - value)).sum())
    return Terms(
        (Group("x", members, value, slope),), "Σ x·eˣ / Σ eˣ = {weighted}/{total}", scale, "formula", soft_rule
    )


def soft_grad_terms(index: Index, wrt: str, dy: Array, x_nchw: Array, kernel: Any, *, stride: Any = None) -> Terms:
    """The outputs whose windows cover this number, coefficient p·(1 + x − y)."""
    where, outputs, at = _pulls(index, wrt, x_nchw, kernel, {"stride": stride})
    view = where.of(x_nchw, 0.0)[index[0], index[1], outputs[:, 2], outputs[:, 3]].astype(np.float64)
    p = _shares(view)
    y = (p * view).sum(axis=(-2, -1))
    rows = np.arange(len(outputs))
    size = where.kernel[0] * where.kernel[1]
    own_p, own_x = p.reshape(len(outputs), size)[rows, at], view.reshape(len(outputs), size)[rows, at]
    group = plain("y.grad", outputs, dy, own_p * (1 + own_x - y))
    reach = own_p * (1 + np.abs(own_x) + (p * np.abs(view)).sum(axis=(-2, -1)))
    return summed([group], "x.grad = Σ y.grad·p·(1 + x − y)", float((np.abs(group.value) * reach).sum()))


def _pulls(
    index: Index, wrt: str, x_nchw: Array, kernel: Any, settings: dict[str, Any]
) -> tuple[Windows, Array, Array]:
    """The windows, the outputs that cover pixel `index`, and its place in each."""
    if wrt != "x":
        raise unknown(wrt, ["x"], "the argument of a pooling whose gradient is asked for")
    where = place(x_nchw, kernel, **settings)
    outputs, at = where.outputs(check_index(index, x_nchw.shape, "x.grad"))
    return where, outputs, at


IMAGE = (Argument("x", "nchw", "the feature maps"),)
KERNEL = Attribute("kernel", None, "size of the window; a number or (height, width)")
STRIDE = Attribute("stride", None, "pixels between windows; the kernel's size unless given")
PADDING = Attribute("padding", 0, "pixels around, at most half the kernel")
DILATION = Attribute("dilation", 1, "pixels between the window's elements")
CEIL = Attribute("ceil", False, "whether a last window may run over the edge")
COUNTS = Attribute("count_padding", True, "whether padding counts in D")

OPERATIONS = (
    Operation(
        "max_pool",
        "pooling",
        "the largest number of each window",
        IMAGE,
        max_forward,
        max_backward,
        max_terms,
        max_grad_terms,
        (KERNEL, STRIDE, PADDING, DILATION, CEIL),
    ),
    Operation(
        "average_pool",
        "pooling",
        "the mean of each window",
        IMAGE,
        average_forward,
        average_backward,
        average_terms,
        average_grad_terms,
        (KERNEL, STRIDE, PADDING, CEIL, COUNTS),
    ),
    Operation(
        "soft_pool",
        "pooling",
        "the mean of each window, weighted by its softmax",
        IMAGE,
        soft_forward,
        soft_backward,
        soft_terms,
        soft_grad_terms,
        (KERNEL, STRIDE),
    ),
)

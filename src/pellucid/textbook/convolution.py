r"""Convolution: the same small kernel at every place of the image.

As the field uses the word it is cross-correlation, the kernel not turned (see `variants` for the true one):

$$y_{noij} = b_o + \sum_{c,k,l} x_{n,c,\,iS-P+kD,\,jS-P+lD}\; w_{ockl},$$

S the stride, P the zero padding, D the dilation; numbers outside the image are 0. The output has
⌊(W − D(K − 1) − 1 + 2P)/S⌋ + 1 places. With G groups the channels fall into G equal parts, and output o sees only the
channels of its own part: c runs over C/G channels.

**Backward.** y is linear in x and in w. The slope of y[n,o,i,j] with respect to w[o,c,k,l] is the pixel it met,

$$\frac{\partial L}{\partial w_{ockl}}
= \sum_{n,i,j} \frac{\partial L}{\partial y_{noij}}\,x_{n,c,\,iS-P+kD,\,jS-P+lD},$$

and with respect to a pixel it is the weight that lay on it: every output whose window covers the pixel gives its
gradient back through that weight,

$$\frac{\partial L}{\partial x_{nchw}} = \sum_{o,k,l} \frac{\partial L}{\partial y_{noij}}\,w_{ockl}
\quad\text{over } i = \tfrac{h+P-kD}{S},\ j = \tfrac{w+P-lD}{S}\text{ where whole and inside},\qquad
\frac{\partial L}{\partial b_o} = \sum_{n,i,j} \frac{\partial L}{\partial y_{noij}}.$$

One number by hand: 0·0 + 1·1 + 3·2 + 4·3 = 19.

>>> x = np.arange(9.0).reshape(1, 1, 3, 3)
>>> w = np.arange(4.0).reshape(1, 1, 2, 2)
>>> forward(x, w)[0][0, 0].tolist()
[[19.0, 25.0], [37.0, 43.0]]
>>> terms((0, 0, 0, 0), x, w).numbers()
'0·0 + 1·1 + 3·2 + 4·3 = 19'

Axes: x N C H W, w O C/G K L, b O, y N O I J. Sources: Fukushima 1980; LeCun et al. 1989, 1998; Yu & Koltun 2016
(dilation); Krizhevsky et al. 2012 (groups).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pellucid.textbook.arrays import (
    Pair,
    contract,
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
from pellucid.textbook.operation import PARAMETER, Argument, Attribute, Operation, given
from pellucid.textbook.terms import (
    Array,
    Group,
    Index,
    Terms,
    check_index,
    check_shape,
    grid,
    plain,
    products,
    row,
    summed,
    unknown,
)


@dataclass(frozen=True)
class Geometry:
    """Where windows lie: ((top, bottom), (left, right)) padding, and stride and dilation as (height, width)."""

    stride: Pair
    pads: tuple[Pair, Pair]
    dilation: Pair
    groups: int

    def out(self, high: int, wide: int, kernel: Pair) -> Pair:
        """The output's height and width."""
        return (
            out_size(high, kernel[0], self.stride[0], self.pads[0], self.dilation[0], "height"),
            out_size(wide, kernel[1], self.stride[1], self.pads[1], self.dilation[1], "width"),
        )


class Kept(NamedTuple):
    """What the way back needs."""

    x_nchw: Array
    w_ockl: Array
    has_bias: bool
    geometry: Geometry


def geometry(stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Geometry:
    """Settings as given (a number, a pair, or padding as two pairs) in one form."""
    return Geometry(pair(stride, "stride", 1), sides(padding), pair(dilation, "dilation", 1), groups)


def forward(x_nchw: Array, w_ockl: Array, b_o: Array | None = None, **settings: Any) -> tuple[Array, Kept]:
    """Y = x ⋆ w + b; keeps x and w. Settings: stride, padding, dilation, groups."""
    place = _check(x_nchw, w_ockl, b_o, settings)
    y_noij = correlate(x_nchw, w_ockl, place)
    if b_o is not None:
        y_noij = y_noij + b_o[:, None, None]
    return y_noij, Kept(x_nchw, w_ockl, b_o is not None, place)


def backward(dy_noij: Array, kept: Kept) -> dict[str, Array]:
    """The three sums of the page."""
    x_nchw, w_ockl, has_bias, place = kept
    return given(
        x=spread(dy_noij, w_ockl, (x_nchw.shape[2], x_nchw.shape[3]), place),
        w=meet(dy_noij, x_nchw, (w_ockl.shape[2], w_ockl.shape[3]), place),
        b=dy_noij.sum(axis=(0, 2, 3)) if has_bias else None,
    )


def correlate(x_nchw: Array, w_ockl: Array, place: Geometry) -> Array:
    """Every window times the kernel: the sum over c, k, l at once."""
    kernel = (w_ockl.shape[2], w_ockl.shape[3])
    view = windows(pad_planes(x_nchw, place.pads), kernel, place.stride, place.dilation)
    y_ngoij = contract("ngcijkl,gockl->ngoij", _split(view, 1, place.groups), _split(w_ockl, 0, place.groups))
    return _join(y_ngoij, 1)


def spread(dy_noij: Array, w_ockl: Array, shape: Pair, place: Geometry) -> Array:
    """dx: each output's gradient, times its kernel, added where its window lay."""
    padded = (shape[0] + sum(place.pads[0]), shape[1] + sum(place.pads[1]))
    share = contract("ngoij,gockl->ngcijkl", _split(dy_noij, 1, place.groups), _split(w_ockl, 0, place.groups))
    return crop_planes(fold(_join(share, 1), padded, place.stride, place.dilation), place.pads)


def meet(dy_noij: Array, x_nchw: Array, kernel: Pair, place: Geometry) -> Array:
    """dw: each output's gradient times the pixel that the weight met there, over images and places."""
    view = windows(pad_planes(x_nchw, place.pads), kernel, place.stride, place.dilation)
    high, wide = dy_noij.shape[2:]
    view = view[:, :, :high, :wide]
    dw = contract("ngoij,ngcijkl->gockl", _split(dy_noij, 1, place.groups), _split(view, 1, place.groups))
    return _join(dw, 0)


def terms(index: Index, x_nchw: Array, w_ockl: Array, b_o: Array | None = None, **settings: Any) -> Terms:
    """One product a pixel of the window that lies on the image, and the bias."""
    place = _check(x_nchw, w_ockl, b_o, settings)
    out = place.out(x_nchw.shape[2], x_nchw.shape[3], (w_ockl.shape[2], w_ockl.shape[3]))
    index = check_index(index, (x_nchw.shape[0], w_ockl.shape[0], *out), "the output of convolution")
    groups = [patch(index, "x", x_nchw, "w", w_ockl, place)]
    if b_o is not None:
        groups.append(plain("b", row((index[1],)), b_o))
    return summed(groups, "y[n,o,i,j] = Σ_c,k,l x[n,c,iS−P+kD,jS−P+lD]·w[o,c,k,l] + b[o]")


def grad_terms(
    index: Index, wrt: str, dy: Array, x_nchw: Array, w_ockl: Array, b_o: Array | None = None, **settings: Any
) -> Terms:
    """For x: the outputs whose windows cover the pixel; for w and b: every image and place."""
    place = _check(x_nchw, w_ockl, b_o, settings)
    shapes = {"x": x_nchw.shape, "w": w_ockl.shape} | ({} if b_o is None else {"b": b_o.shape})
    if wrt not in shapes:
        raise unknown(wrt, list(shapes), "the argument of convolution whose gradient is asked for")
    index = check_index(index, shapes[wrt], f"{wrt}.grad")
    if wrt == "x":
        return summed(
            [reach(index, "y.grad", dy, "w", w_ockl, place)], "x.grad[n,c,h,w] = Σ_o,i,j y.grad[n,o,i,j]·w[o,c,k,l]"
        )
    if wrt == "w":
        return summed(
            [meetings(index, "y.grad", dy, "x", x_nchw, place)], "w.grad[o,c,k,l] = Σ_n,i,j y.grad[n,o,i,j]·x[n,c,h,w]"
        )
    n, _, i, j = (range(size) for size in dy.shape)
    return summed([plain("y.grad", grid(n, index[0], i, j), dy)], "b.grad[o] = Σ_n,i,j y.grad[n,o,i,j]")


def patch(index: Index, source: str, x: Array, factor: str, w: Array, place: Geometry) -> Group:
    """The products under one window: x at (n, c, iS−P+kD, jS−P+lD) and w at (o, c, k, l)."""
    n, o, i, j = index
    k, h = taps(i, w.shape[2], place.stride[0], place.pads[0][0], place.dilation[0], x.shape[2])
    m, v = taps(j, w.shape[3], place.stride[1], place.pads[1][0], place.dilation[1], x.shape[3])
    c = np.arange(w.shape[1])
    first = o // (w.shape[0] // place.groups) * w.shape[1]
    return products(source, grid(n, first + c, h, v), x, factor, grid(o, c, k, m), w)


def reach(index: Index, source: str, dy: Array, factor: str, w: Array, place: Geometry) -> Group:
    """The outputs (n, o, i, j) whose windows cover pixel (n, c, h, v), each with the weight that lies on it."""
    n, c, h, v = index
    k, i = covers(h, w.shape[2], place.stride[0], place.pads[0][0], place.dilation[0], dy.shape[2])
    m, j = covers(v, w.shape[3], place.stride[1], place.pads[1][0], place.dilation[1], dy.shape[3])
    each = w.shape[0] // place.groups
    o = c // w.shape[1] * each + np.arange(each)
    o1, k1, m1 = mesh(o, k, m)
    _, i1, j1 = mesh(o, i, j)
    at = np.stack([np.full_like(o1, n), o1, i1, j1], axis=1)
    lies = np.stack([o1, np.full_like(o1, c % w.shape[1]), k1, m1], axis=1)
    return products(source, at, dy, factor, lies, w)


def meetings(index: Index, source: str, dy: Array, factor: str, x: Array, place: Geometry) -> Group:
    """Every (n, i, j) at which weight (o, c, k, l) met a pixel of the image, and the pixel."""
    o, c, k, m = index
    channel = o // (dy.shape[1] // place.groups) * (x.shape[1] // place.groups) + c
    i, j = np.arange(dy.shape[2]), np.arange(dy.shape[3])
    h = i * place.stride[0] - place.pads[0][0] + k * place.dilation[0]
    v = j * place.stride[1] - place.pads[1][0] + m * place.dilation[1]
    on_h, on_v = (h >= 0) & (h < x.shape[2]), (v >= 0) & (v < x.shape[3])
    n = range(dy.shape[0])
    return products(source, grid(n, o, i[on_h], j[on_v]), dy, factor, grid(n, channel, h[on_h], v[on_v]), x)


def _split(array: Array, axis: int, groups: int) -> Array:
    """One axis into (groups, its part)."""
    shape = array.shape
    return array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])


def _join(array: Array, axis: int) -> Array:
    """The axes (groups, part) into one again."""
    shape = array.shape
    return array.reshape(*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])


def _check(x: Array, w: Array, b: Array | None, settings: dict[str, Any]) -> Geometry:
    place = geometry(**settings)
    if x.ndim != 4 or w.ndim != 4:
        raise ValueError(
            f"x has shape {x.shape} and w {w.shape}, but a convolution takes x (N, C, H, W) and w (O, C/G, K, L)"
        )
    groups = place.groups
    if groups < 1 or x.shape[1] % groups or w.shape[0] % groups:
        raise ValueError(
            f"{groups} groups do not split x {x.shape} and w {w.shape} evenly: C = {x.shape[1]} and O = {w.shape[0]} "
            f"must both be multiples of G"
        )
    if x.shape[1] // groups != w.shape[1]:
        raise ValueError(
            f"x has shape {x.shape} and w {w.shape}, but each kernel must have C/G = {x.shape[1]}/{groups} = "
            f"{x.shape[1] // groups} channels, not {w.shape[1]}"
        )
    place.out(x.shape[2], x.shape[3], (w.shape[2], w.shape[3]))
    if b is not None:
        check_shape(b, (w.shape[0],), "b", f"one bias a kernel of w {w.shape}")
    return place


IMAGE = Argument("x", "nchw", "the images or feature maps")
KERNELS = Argument("w", "ockl", "the kernels", PARAMETER)
BIASES = Argument("b", "o", "the biases", PARAMETER, optional=True)
STRIDE = Attribute("stride", 1, "pixels between windows; a number or (height, width)")
PADDING = Attribute("padding", 0, "zero pixels around; a number, (height, width), or ((top, bottom), (left, right))")
DILATION = Attribute("dilation", 1, "pixels between the kernel's elements; a number or (height, width)")
GROUPS = Attribute("groups", 1, "equal parts of the channels, each with its own kernels")

OPERATIONS = (
    Operation(
        "convolution",
        "convolution",
        "the same kernel at every place (cross-correlation)",
        (IMAGE, KERNELS, BIASES),
        forward,
        backward,
        terms,
        grad_terms,
        (STRIDE, PADDING, DILATION, GROUPS),
    ),
)

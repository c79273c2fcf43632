r"""Transposed convolution: every pixel spreads its kernel over the output.

It is the convolution's way back used as a way forward: as `convolution` maps x to y by a matrix A, this maps by Aᵀ, so
its gradients are those of `convolution` with the roles of x and y exchanged: dx is a convolution of dy, and dw meets dy
with x.

The output is (H − 1)·S − 2P + D(K − 1) + 1 pixels high (plus the output padding, rows that no kernel need reach: with
a stride several sizes of image give the same size of feature map, and this says which of them is meant).

$$y_{noij} = b_o + \sum_{c,h,w} x_{nchw}\,w_{c,o,\,i+P-hS,\,j+P-wS}$$

$$\frac{\partial L}{\partial x_{nchw}} = \sum_{o,k,l} \frac{\partial L}{\partial y_{n,o,\,hS-P+kD,\,wS-P+lD}}\,w_{cokl},
\qquad
\frac{\partial L}{\partial w_{cokl}} = \sum_{n,h,w} \frac{\partial L}{\partial y_{n,o,\,hS-P+kD,\,wS-P+lD}}\,x_{nchw}.$$

>>> import numpy as np
>>> x, w = np.array([1.0, 2.0]).reshape(1, 1, 1, 2), np.array([1.0, 10.0, 100.0]).reshape(1, 1, 1, 3)
>>> forward(x, w)[0].ravel().tolist(), forward(x, w, stride=2)[0].ravel().tolist()
([1.0, 12.0, 120.0, 200.0], [1.0, 10.0, 102.0, 20.0, 200.0])

Sources: Zeiler et al. 2010; Dumoulin & Visin 2016.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pellucid.textbook import convolution
from pellucid.textbook.arrays import Pair, contract, crop_planes, fold, pair
from pellucid.textbook.convolution import BIASES, DILATION, GROUPS, IMAGE, PADDING, STRIDE, Geometry
from pellucid.textbook.operation import PARAMETER, Argument, Attribute, Operation, given
from pellucid.textbook.terms import (
    Array,
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


class Kept(NamedTuple):
    """What the way back needs."""

    x_nchw: Array
    w_cokl: Array
    has_bias: bool
    geometry: Geometry


def _lifted(
    x: Array, w: Array, b: Array | None, output_padding: Any, settings: dict[str, Any]
) -> tuple[Geometry, Pair]:
    place = convolution.geometry(**settings)
    if x.ndim != 4 or w.ndim != 4 or x.shape[1] != w.shape[0] or x.shape[1] % place.groups:
        raise ValueError(
            f"x has shape {x.shape} and w {w.shape}, but transposed convolution takes x (N, C, H, W) and "
            f"w (C, O/G, K, L), with C a multiple of G = {place.groups}"
        )
    if b is not None:
        check_shape(b, (w.shape[1] * place.groups,), "b", f"one bias an output channel of w {w.shape}")
    extra = pair(output_padding, "output_padding", 0)
    size = [
        (x.shape[2 + a] - 1) * place.stride[a]
        - sum(place.pads[a])
        + place.dilation[a] * (w.shape[2 + a] - 1)
        + 1
        + extra[a]
        for a in (0, 1)
    ]
    if min(size) < 1 or any(extra[a] >= max(place.stride[a], place.dilation[a]) for a in (0, 1)):
        raise ValueError(
            f"x {x.shape} with w {w.shape} gives an output of {size}: (H − 1)·S − 2P + D(K − 1) + 1 + output padding "
            f"must be at least 1, and output padding {extra} smaller than the stride or the dilation"
        )
    return place, (size[0], size[1])


def forward(
    x_nchw: Array, w_cokl: Array, b_o: Array | None = None, *, output_padding: Any = 0, **settings: Any
) -> tuple[Array, Kept]:
    """Y = Aᵀx + b: every pixel adds its kernel to the output, (N, C, H, W), (C, O/G, K, L) -> (N, O, I, J).

    I = (H − 1)·S − 2P + D(K − 1) + 1 + output padding.
    """
    place, size = _lifted(x_nchw, w_cokl, b_o, output_padding, settings)
    padded = (size[0] + sum(place.pads[0]), size[1] + sum(place.pads[1]))
    split = x_nchw.reshape(x_nchw.shape[0], place.groups, -1, *x_nchw.shape[2:])
    kernels = w_cokl.reshape(place.groups, -1, *w_cokl.shape[1:])
    share = contract("ngchw,gcokl->ngohwkl", split, kernels)
    share = share.reshape(share.shape[0], -1, *share.shape[3:])
    y_noij = crop_planes(fold(share, padded, place.stride, place.dilation), place.pads)
    return (y_noij if b_o is None else y_noij + b_o[:, None, None]), Kept(x_nchw, w_cokl, b_o is not None, place)


def backward(dy_noij: Array, kept: Kept) -> dict[str, Array]:
    """Dx = A·dy, a convolution of dy by the same kernels; dw meets each pixel with the gradients it spread to."""
    x_nchw, w_cokl, has_bias, place = kept
    high, wide = x_nchw.shape[2:]
    return given(
        x=convolution.correlate(dy_noij, w_cokl, place)[:, :, :high, :wide],
        w=convolution.meet(x_nchw, dy_noij, (w_cokl.shape[2], w_cokl.shape[3]), place),
        b=dy_noij.sum(axis=(0, 2, 3)) if has_bias else None,
    )


def terms(
    index: Index, x: Array, w: Array, b: Array | None = None, *, output_padding: Any = 0, **settings: Any
) -> Terms:
    """The pixels whose kernel reaches this output, each with the weight that does."""
    place, size = _lifted(x, w, b, output_padding, settings)
    index = check_index(index, (x.shape[0], w.shape[1] * place.groups, *size), "the output of transposed_convolution")
    groups = [convolution.reach(index, "x", x, "w", w, place)]
    if b is not None:
        groups.append(plain("b", row((index[1],)), b))
    return summed(groups, "y[n,o,i,j] = Σ_c,h,w x[n,c,h,w]·w[c,o,i+P−hS,j+P−wS] + b[o]")


def grad_terms(
    index: Index,
    wrt: str,
    dy: Array,
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    output_padding: Any = 0,
    **settings: Any,
) -> Terms:
    """For x: the gradients under its kernel; for w: every pixel it was applied to, with the gradient it reached."""
    place, _ = _lifted(x, w, b, output_padding, settings)
    shapes = {"x": x.shape, "w": w.shape} | ({} if b is None else {"b": b.shape})
    if wrt not in shapes:
        raise unknown(wrt, list(shapes), "the argument of transposed_convolution whose gradient is asked for")
    index = check_index(index, shapes[wrt], f"{wrt}.grad")
    if wrt == "x":
        return summed(
            [convolution.patch(index, "y.grad", dy, "w", w, place)],
            "x.grad[n,c,h,w] = Σ_o,k,l y.grad[n,o,i,j]·w[c,o,k,l]",
        )
    if wrt == "w":
        met = convolution.meetings(index, "x", x, "y.grad", dy, place)
        assert met.factor is not None
        pulls = products("y.grad", met.factor.index, dy, "x", met.index, x)
        return summed([pulls], "w.grad[c,o,k,l] = Σ_n,h,w y.grad[n,o,i,j]·x[n,c,h,w]")
    n, _, i, j = (range(s) for s in dy.shape)
    return summed([plain("y.grad", grid(n, index[0], i, j), dy)], "b.grad[o] = Σ_n,i,j y.grad[n,o,i,j]")


EXTRA = Attribute("output_padding", 0, "rows and columns more at the bottom and right, below the stride")

OPERATIONS = (
    Operation(
        "transposed_convolution",
        "convolution",
        "every pixel spreads its kernel over the output",
        (IMAGE, Argument("w", "cokl", "the kernels, (C, O/G, K, L)", PARAMETER), BIASES),
        forward,
        backward,
        terms,
        grad_terms,
        (STRIDE, PADDING, DILATION, GROUPS, EXTRA),
    ),
)

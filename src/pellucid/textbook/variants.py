r"""Convolutions that are convolution seen another way: true, depthwise, pointwise, separable, unrolled.

**True convolution** turns the kernel by 180°, y(i) = Σ x(i − k)·w(k), as mathematics and signal processing have it. So
it is the page `convolution` with w[o, c, K−1−k, L−1−l]; the two agree when every kernel looks the same turned by 180°,
and since kernels are learnt, a network learns the turned ones and gives the same outputs.

**Depthwise**: as many groups as channels, each channel has its own kernels and none sees another. **Pointwise** (1×1):
a linear layer across the channels of each pixel. **Separable**: depthwise, then pointwise; K·L·C + C·O weights where
the whole would have K·L·C·O.

**Unrolled** (im2col): write each window as a row of a matrix X of (N·I·J, C·K·L); then y = X·Wᵀ is one matrix product,
dW = dYᵀ·X, and dX = dY·W is folded back onto the image, overlaps adding up.

The golden rule of the turned kernel, in one number: with x = (1, 2, 3), w = (0, 1, 10), cross-correlation gives
1·0 + 2·1 + 3·10 = 32 and true convolution 1·10 + 2·1 + 3·0 = 12.

>>> x, w = np.array([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3), np.array([0.0, 1.0, 10.0]).reshape(1, 1, 1, 3)
>>> convolution.forward(x, w)[0].item(), true_forward(x, w)[0].item()
(32.0, 12.0)

Sources: Sifre & Mallat 2014, Howard et al. 2017 (depthwise separable); Lin et al. 2014 (1×1); Chellapilla et al. 2006
(unrolled).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from pellucid.textbook import convolution
from pellucid.textbook.arrays import Pair, contract, crop_planes, fold, pad_planes, pair, sides, windows
from pellucid.textbook.convolution import BIASES, DILATION, GROUPS, IMAGE, KERNELS, PADDING, STRIDE, Geometry
from pellucid.textbook.operation import PARAMETER, Argument, Operation, given
from pellucid.textbook.terms import (
    Array,
    Index,
    Terms,
    check_index,
    unknown,
)

# --- true convolution ---------------------------------------------------------------------------------------------


def turn(w_ockl: Array) -> Array:
    """The kernel turned by 180°."""
    return w_ockl[:, :, ::-1, ::-1]


def true_forward(
    x_nchw: Array, w_ockl: Array, b_o: Array | None = None, **settings: Any
) -> tuple[Array, convolution.Kept]:
    """Y = x ∗ w + b, the kernel turned; keeps x and the turned kernel."""
    return convolution.forward(x_nchw, turn(w_ockl), b_o, **settings)


def true_backward(dy_noij: Array, kept: convolution.Kept) -> dict[str, Array]:
    """As convolution's, with the kernel's gradient turned back: w[k] was used where the turned one has K−1−k."""
    gradients = convolution.backward(dy_noij, kept)
    return {**gradients, "w": turn(gradients["w"])}


def true_terms(index: Index, x: Array, w: Array, b: Array | None = None, **settings: Any) -> Terms:
    """Convolution's products, each with the weight of the turned kernel."""
    terms = convolution.terms(index, x, turn(w), b, **settings)
    return replace(
        _turned(terms, w), template="y[n,o,i,j] = Σ_c,k,l x[n,c,iS−P+(K−1−k)D,jS−P+(L−1−l)D]·w[o,c,k,l] + b[o]"
    )


def true_grad_terms(
    index: Index, wrt: str, dy: Array, x: Array, w: Array, b: Array | None = None, **settings: Any
) -> Terms:
    """Convolution's, with the kernel's indices turned."""
    if wrt == "w":
        o, c, k, m = check_index(index, w.shape, "w.grad")
        index = (o, c, w.shape[2] - 1 - k, w.shape[3] - 1 - m)
    return _turned(convolution.grad_terms(index, wrt, dy, x, turn(w), b, **settings), w)


def _turned(terms: Terms, w: Array) -> Terms:
    """Indices of the turned kernel as indices of the kernel itself."""
    last = np.array([0, 0, w.shape[2] - 1, w.shape[3] - 1])
    groups = []
    for group in terms.groups:
        factor = group.factor
        if factor is not None and factor.source == "w":
            sign = np.array([1, 1, -1, -1])
            factor = replace(factor, index=factor.index * sign + last)
        groups.append(replace(group, factor=factor))
    return replace(terms, groups=tuple(groups))


# --- depthwise and pointwise --------------------------------------------------------------------------------------


def _each_channel(x: Array, w: Array, settings: dict[str, Any]) -> dict[str, Any]:
    if x.ndim != 4 or w.ndim != 4 or w.shape[1] != 1 or w.shape[0] % x.shape[1]:
        raise ValueError(
            f"x has shape {x.shape} and w {w.shape}, but depthwise takes x (N, C, H, W) and "
            f"w (M·C, 1, K, L): G = C groups"
        )
    return {**settings, "groups": x.shape[1]}


def depthwise_forward(
    x_nchw: Array, w_ockl: Array, b_o: Array | None = None, **settings: Any
) -> tuple[Array, convolution.Kept]:
    """Each channel convolved by its own kernels: convolution with G = C."""
    return convolution.forward(x_nchw, w_ockl, b_o, **_each_channel(x_nchw, w_ockl, settings))


def depthwise_backward(dy_noij: Array, kept: convolution.Kept) -> dict[str, Array]:
    """Convolution's sums; o and c belong to one channel, so no sum over channels is left."""
    return convolution.backward(dy_noij, kept)


def depthwise_terms(index: Index, x: Array, w: Array, b: Array | None = None, **settings: Any) -> Terms:
    """K·L products of one channel, and the bias."""
    return convolution.terms(index, x, w, b, **_each_channel(x, w, settings))


def depthwise_grad_terms(
    index: Index, wrt: str, dy: Array, x: Array, w: Array, b: Array | None = None, **settings: Any
) -> Terms:
    """Convolution's, of one channel."""
    return convolution.grad_terms(index, wrt, dy, x, w, b, **_each_channel(x, w, settings))


class KeptPointwise(NamedTuple):
    """What the way back needs."""

    x_nchw: Array
    w_oc: Array
    has_bias: bool


def pointwise_forward(x_nchw: Array, w_ockl: Array, b_o: Array | None = None) -> tuple[Array, KeptPointwise]:
    """y[n,o,i,j] = Σ_c x[n,c,i,j]·w[o,c] + b[o]: (N, C, H, W), (O, C, 1, 1) -> (N, O, H, W)."""
    if w_ockl.shape[2:] != (1, 1) or x_nchw.shape[1] != w_ockl.shape[1]:
        raise ValueError(
            f"x has shape {x_nchw.shape} and w {w_ockl.shape}, but 1×1 takes x (N, C, H, W) and w (O, C, 1, 1)"
        )
    w_oc = w_ockl[:, :, 0, 0]
    y_noij = contract("ncij,oc->noij", x_nchw, w_oc)
    return (y_noij if b_o is None else y_noij + b_o[:, None, None]), KeptPointwise(x_nchw, w_oc, b_o is not None)


def pointwise_backward(dy_noij: Array, kept: KeptPointwise) -> dict[str, Array]:
    """The linear layer's three sums, over the channels of each pixel."""
    x_nchw, w_oc, has_bias = kept
    dw_oc = contract("noij,ncij->oc", dy_noij, x_nchw)
    return given(
        x=contract("noij,oc->ncij", dy_noij, w_oc),
        w=dw_oc[:, :, None, None],
        b=dy_noij.sum(axis=(0, 2, 3)) if has_bias else None,
    )


# --- separable ----------------------------------------------------------------------------------------------------


class KeptSeparable(NamedTuple):
    """What the way back needs: of each half, its own."""

    depthwise: convolution.Kept
    pointwise: KeptPointwise


def separable_forward(
    x_nchw: Array, v_ckl: Array, w_oc: Array, b_o: Array | None = None, **settings: Any
) -> tuple[Array, KeptSeparable]:
    """Depthwise v (M·C, 1, K, L), giving z, then pointwise w (O, M·C, 1, 1) and the bias."""
    z, kept = depthwise_forward(x_nchw, v_ckl, **settings)
    y, kept_pointwise = pointwise_forward(z, w_oc, b_o)
    return y, KeptSeparable(kept, kept_pointwise)


def separable_backward(dy_noij: Array, kept: KeptSeparable) -> dict[str, Array]:
    """The chain rule: pointwise first, its dx is the depthwise half's dy."""
    outer = pointwise_backward(dy_noij, kept.pointwise)
    inner = depthwise_backward(outer["x"], kept.depthwise)
    return {**outer, "x": inner["x"], "v": inner["w"], "z": outer["x"]}


def separable_terms(
    index: Index, x: Array, v: Array, w: Array, b: Array | None = None, *, output: str = "y", **settings: Any
) -> Terms:
    """Y from z (the depthwise half's output), and z from x."""
    if output == "z":
        return _renamed(
            depthwise_terms(index, x, v, **settings), {"w": "v"}, "z[n,c,i,j] = Σ_k,l x[n,c,h,w]·v[c,0,k,l]"
        )
    if output != "y":
        raise unknown(output, ["y", "z"], "output")
    z, _ = depthwise_forward(x, v, **settings)
    terms = convolution.terms(index, z, w, b)
    return _renamed(terms, {"x": "z"}, "y[n,o,i,j] = Σ_c z[n,c,i,j]·w[o,c] + b[o]")


def separable_grad_terms(
    index: Index, wrt: str, dy: Array, x: Array, v: Array, w: Array, b: Array | None = None, **settings: Any
) -> Terms:
    """w, b and z from the gradients of y; v and x from those of z."""
    z, _ = depthwise_forward(x, v, **settings)
    if wrt in {"x", "v"}:
        dz = contract("noij,oc->ncij", dy, w[:, :, 0, 0])
        terms = depthwise_grad_terms(index, {"v": "w"}.get(wrt, wrt), dz, x, v, **settings)
        return _renamed(terms, {"y.grad": "z.grad", "w": "v"}, f"{wrt}.grad = Σ z.grad·{'v' if wrt == 'x' else 'x'}")
    terms = convolution.grad_terms(index, {"z": "x"}.get(wrt, wrt), dy, z, w, b)
    return _renamed(terms, {"x": "z"}, terms.template.replace("x", "z"))


def _renamed(terms: Terms, names: dict[str, str], template: str) -> Terms:
    """The same terms, of arrays that go by other names here."""
    groups = []
    for group in terms.groups:
        factor = group.factor
        if factor is not None:
            factor = replace(factor, source=names.get(factor.source, factor.source))
        groups.append(replace(group, source=names.get(group.source, group.source), factor=factor))
    return replace(terms, groups=tuple(groups), template=template)


# --- unrolled -----------------------------------------------------------------------------------------------------


class KeptUnrolled(NamedTuple):
    """What the way back needs: the matrix itself, and where its rows came from."""

    rows: Array
    w_ockl: Array
    x_shape: tuple[int, ...]
    has_bias: bool
    geometry: Geometry


def unroll(x_nchw: Array, kernel: Pair, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Array:
    """im2col: each window as a row, (N, C, H, W) -> (N·I·J, C·K·L).

    >>> unroll(np.arange(9.0).reshape(1, 1, 3, 3), (2, 2))[0].tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    padded = pad_planes(x_nchw, sides(padding))
    view = windows(padded, kernel, pair(stride, "stride", 1), pair(dilation, "dilation", 1))
    n, c, high, wide, k, m = view.shape
    return view.transpose(0, 2, 3, 1, 4, 5).reshape(n * high * wide, c * k * m)


def unrolled_forward(
    x_nchw: Array, w_ockl: Array, b_o: Array | None = None, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1
) -> tuple[Array, KeptUnrolled]:
    """Y = X·Wᵀ, X the windows as rows; keeps X (K·L times as large as x, the price of it)."""
    place = convolution.geometry(stride, padding, dilation)
    kernel = (w_ockl.shape[2], w_ockl.shape[3])
    if x_nchw.ndim != 4 or x_nchw.shape[1] != w_ockl.shape[1]:
        raise ValueError(
            f"x has shape {x_nchw.shape} and w {w_ockl.shape}, but X·Wᵀ needs x (N, C, H, W) and w (O, C, K, L)"
        )
    high, wide = place.out(x_nchw.shape[2], x_nchw.shape[3], kernel)
    rows = unroll(x_nchw, kernel, stride=place.stride, padding=place.pads, dilation=place.dilation)
    y = rows @ w_ockl.reshape(w_ockl.shape[0], -1).T
    if b_o is not None:
        y = y + b_o
    y_noij = y.reshape(x_nchw.shape[0], high, wide, -1).transpose(0, 3, 1, 2)
    return y_noij, KeptUnrolled(rows, w_ockl, x_nchw.shape, b_o is not None, place)


def unrolled_backward(dy_noij: Array, kept: KeptUnrolled) -> dict[str, Array]:
    """DW = dYᵀ·X; dX = dY·W, each row added back to the pixels it was read from."""
    rows, w_ockl, (n, c, high, wide), has_bias, place = kept
    out, _, k, m = w_ockl.shape
    dy = dy_noij.transpose(0, 2, 3, 1).reshape(-1, out)
    d_rows = (dy @ w_ockl.reshape(out, -1)).reshape(n, *dy_noij.shape[2:], c, k, m).transpose(0, 3, 1, 2, 4, 5)
    padded = (high + sum(place.pads[0]), wide + sum(place.pads[1]))
    return given(
        x=crop_planes(fold(d_rows, padded, place.stride, place.dilation), place.pads),
        w=(dy.T @ rows).reshape(w_ockl.shape),
        b=dy.sum(axis=0) if has_bias else None,
    )


TURNED = (STRIDE, PADDING, DILATION, GROUPS)
SINGLE = (STRIDE, PADDING, DILATION)

OPERATIONS = (
    Operation(
        "true_convolution",
        "convolution",
        "convolution as in mathematics: the kernel turned by 180°",
        (IMAGE, KERNELS, BIASES),
        true_forward,
        true_backward,
        true_terms,
        true_grad_terms,
        TURNED,
    ),
    Operation(
        "depthwise_convolution",
        "convolution",
        "each channel by its own kernels",
        (IMAGE, Argument("w", "ockl", "the kernels, one channel each", PARAMETER), BIASES),
        depthwise_forward,
        depthwise_backward,
        depthwise_terms,
        depthwise_grad_terms,
        SINGLE,
    ),
    Operation(
        "pointwise_convolution",
        "convolution",
        "1×1: a linear layer across the channels of each pixel",
        (IMAGE, Argument("w", "ockl", "the kernels, 1×1", PARAMETER), BIASES),
        pointwise_forward,
        pointwise_backward,
        convolution.terms,
        convolution.grad_terms,
    ),
    Operation(
        "separable_convolution",
        "convolution",
        "depthwise, then pointwise",
        (
            IMAGE,
            Argument("v", "ckl", "the depthwise kernels, (M·C, 1, K, L)", PARAMETER),
            Argument("w", "oc", "the pointwise kernels, (O, M·C, 1, 1)", PARAMETER),
            BIASES,
        ),
        separable_forward,
        separable_backward,
        separable_terms,
        separable_grad_terms,
        SINGLE,
        interior=("z",),
    ),
    Operation(
        "unrolled_convolution",
        "convolution",
        "convolution as one matrix product (im2col)",
        (IMAGE, KERNELS, BIASES),
        unrolled_forward,
        unrolled_backward,
        convolution.terms,
        convolution.grad_terms,
        SINGLE,
    ),
)

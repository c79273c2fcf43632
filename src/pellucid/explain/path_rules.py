"""The best strength of a chain from every output of an operation down to the input, as a logarithm, all at once.

The strength of a chain is the product of its shares, |contribution| / Σ|contributions| at each step. If B_x is the best
from a number x, the best from y is the largest share·B_x over the terms of y. Each rule does this for whole arrays, in
float64, with the same coefficients as the textbook's terms. −∞ says that no chain leads to the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.explain.field_rules import batch_statistics
from pellucid.explain.path_sets import Sets, standardised
from pellucid.explain.path_sums import convolve, convolve_channels, convolve_turned, linear, log, share_of
from pellucid.explain.walk import COPIES, elementwise_of, origins
from pellucid.textbook import adaptive_pooling, boxes, extremes, pooling
from pellucid.textbook.arrays import pair
from pellucid.textbook.elementwise import Elementwise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pellucid.explain.node import Array
    from pellucid.textbook import Operation

#: Outputs of an operation without a rule of its own that are made from their terms; of more, a bound is given.
_MOST = 2000


def best(
    operation: Operation,
    arrays: Sequence[Array | None],
    logs: Sequence[Array | None],
    settings: Mapping[str, Any],
    need: Array,
    output: str = "",
) -> Array:
    """Log of the best strength from each output that is True in `need`; of the others, that or −∞.

    `logs` has the same of each argument, None where it leads to no input. For an operation without a rule of its own,
    and many outputs, the answer is an upper bound. `output` names an output other than the first.
    """
    if all(part is None for part in logs):
        return np.full(need.shape, -np.inf)
    function = elementwise_of(operation)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if output and output != operation.outputs[0]:
            return by_terms(operation, arrays, logs, settings, need, output=output)
        if function is not None:
            return _elementwise(function, arrays, logs, settings)
        if operation.name in COPIES:
            return _copied(operation, arrays, logs, settings)
        rule = _RULES.get(operation.name)
        if rule is not None:
            return rule(arrays, logs, settings, need)
        return by_terms(operation, arrays, logs, settings, need)


def by_terms(
    operation: Operation,
    arrays: Sequence[Array | None],
    logs: Sequence[Array | None],
    settings: Mapping[str, Any],
    need: Array,
    most: int = _MOST,
    output: str = "",
) -> Array:
    """The same from the textbook's terms, one output at a time; of more than `most` outputs only a bound.

    The bound takes every share as 1.
    """
    names = operation.argument_names(len(arrays))
    known = {name: part for name, part in zip(names, logs, strict=True) if part is not None}
    if np.count_nonzero(need) > most:
        return np.where(need, max(part.max(initial=-np.inf) for part in known.values()), -np.inf)
    more = {"output": output or operation.outputs[0]} if len(operation.outputs) > 1 else {}
    out = np.full(need.shape, -np.inf)
    for index in np.argwhere(need):
        at = tuple(index.tolist())
        groups = operation.terms(at, *arrays, **settings, **more).groups
        total = np.array(sum(float(np.abs(group.contribution).sum()) for group in groups))
        for group in groups:
            if group.source in known and len(group):
                ways = log(np.abs(group.contribution)) + known[group.source][tuple(group.index.T)]
                out[at] = max(out[at], float(share_of(ways.max(), total)))
    return out


# --- element by element, and copies -------------------------------------------------------------------------------


def _wide(array: Array | None) -> Array:
    assert array is not None
    return array.astype(np.float64)


def _elementwise(
    function: Elementwise, arrays: Sequence[Array | None], logs: Sequence[Array | None], settings: Mapping[str, Any]
) -> Array:
    wide = [_wide(array) for array in arrays]
    slopes = function.slopes(*wide, **settings)
    sizes = [np.abs((0.0 if s is None else s) * array) for s, array in zip(slopes, wide, strict=True)]
    ways = [log(size) + part for size, part in zip(sizes, logs, strict=True) if part is not None]
    shape = np.broadcast_shapes(*[array.shape for array in wide])
    found = np.full(shape, -np.inf)
    for way in ways:
        found = np.maximum(found, way)
    return share_of(found, np.broadcast_to(sum(sizes), shape))


def _copied(
    operation: Operation, arrays: Sequence[Array | None], logs: Sequence[Array | None], settings: Mapping[str, Any]
) -> Array:
    ways = [np.full(1, -np.inf)]
    for array, part in zip(arrays, logs, strict=True):
        if array is not None:
            # A number that is 0 contributes nothing, copied or not.
            ways.append(np.full(array.size, -np.inf) if part is None else np.where(array != 0, part, -np.inf).ravel())
    return np.asarray(np.concatenate(ways)[origins(operation, arrays, settings)])


# --- pooling ------------------------------------------------------------------------------------------------------


def _max_pool(arrays: Any, logs: Any, settings: Mapping[str, Any], need: Array) -> Array:
    del need
    where = pooling.place(arrays[0], **settings)
    view = where.of(arrays[0], -np.inf)
    flat = view.reshape(*view.shape[:4], -1)
    winner = flat.argmax(axis=-1)[..., None]
    ways = np.where(arrays[0] != 0, logs[0], -np.inf)
    return np.asarray(np.take_along_axis(where.of(ways, -np.inf).reshape(flat.shape), winner, axis=-1)[..., 0])


def _average_pool(arrays: Any, logs: Any, settings: Mapping[str, Any], need: Array) -> Array:
    del need
    where = pooling.place(arrays[0], **{k: v for k, v in settings.items() if k != "count_padding"})
    size = np.abs(_wide(arrays[0]))
    ways = where.of(log(size) + logs[0], -np.inf).max(axis=(-2, -1))
    return share_of(ways, where.of(size, 0.0).sum(axis=(-2, -1)))


def _adaptive_max(arrays: Any, logs: Any, settings: Mapping[str, Any], need: Array) -> Array:
    winner = extremes.adaptive_forward(arrays[0], settings["size"])[1].winner
    ways = np.where(arrays[0] != 0, logs[0], -np.inf).reshape(*winner.shape[:2], -1)
    return np.take_along_axis(ways, winner.reshape(*winner.shape[:2], -1), axis=-1).reshape(need.shape)


def _largest(arrays: Any, logs: Any, settings: Mapping[str, Any], need: Array) -> Array:
    shares = extremes.largest_forward(arrays[0], **settings)[1].shares
    return _mean((arrays[0] * shares, *arrays[1:]), logs, settings, need)


def _soft_pool(arrays: Any, logs: Any, settings: Mapping[str, Any], need: Array) -> Array:
    del need
    where = pooling.place(arrays[0], **settings)
    view = where.of(_wide(arrays[0]), 0.0)
    e = np.exp(view - view.max(axis=(-2, -1), keepdims=True))
    p = e / e.sum(axis=(-2, -1), keepdims=True)
    y = (p * view).sum(axis=(-2, -1), keepdims=True)
    size = np.abs(p * (1 + view - y) * view)
    return share_of((log(size) + where.of(logs[0], -np.inf)).max(axis=(-2, -1)), size.sum(axis=(-2, -1)))


def _over_bins(x: Array, logs: Array, matrices: Sequence[Array]) -> Array:
    """Of y = A·x (A along axis 2, the next along axis 3, …): one axis after the other, for sum and maximum alike."""
    total, ways = np.abs(_wide(x)), log(np.abs(_wide(x))) + logs
    for axis, weights in enumerate(matrices, start=2):
        bins = [np.flatnonzero(row) for row in weights]
        total = np.stack(
            [np.tensordot(total.take(on, axis), row[on], (axis, 0)) for on, row in zip(bins, weights, strict=True)],
            axis=axis,
        )
        # A window that no number lies in is all border.
        largest = [
            (ways.take(on, axis) + log(row[on]).reshape([-1 if a == axis else 1 for a in range(ways.ndim)])).max(
                axis=axis, initial=-np.inf
            )
            for on, row in zip(bins, weights, strict=True)
        ]
        ways = np.stack(largest, axis=axis)
    return share_of(ways, total)


def _adaptive(arrays: Any, logs: Any, settings: Mapping[str, Any], need: Array) -> Array:
    del need
    x, (high, wide) = arrays[0], pair(settings["size"], "size", 1)
    both = (adaptive_pooling.shares(x.shape[2], high), adaptive_pooling.shares(x.shape[3], wide))
    return _over_bins(x, logs[0], both)


def _global(arrays: Any, logs: Any, settings: Mapping[str, Any], need: Array) -> Array:
    return _adaptive(arrays, logs, {**settings, "size": 1}, need)


def _boxes(arrays: Any, logs: Any, settings: Mapping[str, Any], need: Array) -> Array:
    del need
    return _over_bins(arrays[0], logs[0], boxes.matrices(arrays[0], **settings))


def _pyramid(arrays: Any, logs: Any, settings: Mapping[str, Any], need: Array) -> Array:
    x = arrays[0]
    n, c, high, wide = x.shape
    ways, out, start = np.where(x != 0, logs[0], -np.inf), np.empty(need.shape), 0
    for level in settings.get("levels", (1, 2, 4)):
        part = np.empty((n, c, level, level))
        for i, rows in enumerate(adaptive_pooling.bins(high, level)):
            for j, columns in enumerate(adaptive_pooling.bins(wide, level)):
                at = (slice(None), slice(None), slice(*rows), slice(*columns))
                winner = x[at].reshape(n, c, -1).argmax(axis=-1)[..., None]
                part[:, :, i, j] = np.take_along_axis(ways[at].reshape(n, c, -1), winner, axis=-1)[..., 0]
        out[:, start : start + c * level**2] = part.reshape(n, -1)
        start += c * level**2
    return out


# --- sums over axes, softmax --------------------------------------------------------------------------------------


def _mean(arrays: Any, logs: Any, settings: Mapping[str, Any], need: Array) -> Array:
    size = np.abs(_wide(arrays[0]))
    axes = settings.get("axes")
    over = tuple(range(size.ndim)) if axes is None else tuple(int(axis) for axis in axes)
    if not over:
        return share_of(log(size) + logs[0], size)
    found = share_of((log(size) + logs[0]).max(axis=over), size.sum(axis=over))
    return np.asarray(found).reshape(need.shape)


def _matmul(arrays: Any, logs: Any, settings: Mapping[str, Any], need: Array) -> Array:
    """Along the row of A; what it meets in B multiplies it."""
    del settings
    if logs[0] is None:
        return np.full(need.shape, -np.inf)
    a, b = np.abs(_wide(arrays[0])), np.abs(_wide(arrays[1]))
    ways_a, ways_b = log(a) + logs[0], log(b)
    found = np.full(need.shape, -np.inf)
    for k in range(a.shape[-1]):
        found = np.maximum(found, ways_a[..., :, k, None] + ways_b[..., k, None, :])
    return share_of(found, a @ b)


def _softmax(arrays: Any, logs: Any, settings: Mapping[str, Any], need: Array) -> Array:
    """The term of x_m in p_i has the share of p_m·|x_m|, that of x_i itself of (1 − p_i)·|x_i|; so of the logarithm."""
    del need
    axis = int(settings.get("axis", -1))
    x, ways = np.moveaxis(_wide(arrays[0]), axis, -1), np.moveaxis(logs[0], axis, -1)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    size, own = p * np.abs(x), (1 - p) * np.abs(x)
    lead = log(size) + ways
    first = lead.argmax(axis=-1)[..., None]
    without = lead.copy()
    np.put_along_axis(without, first, -np.inf, axis=-1)
    is_first = np.arange(x.shape[-1]) == first
    others = np.where(is_first, without.max(axis=-1, keepdims=True), lead.max(axis=-1, keepdims=True))
    total = size.sum(axis=-1, keepdims=True) - size + own
    return np.moveaxis(share_of(np.maximum(others, log(own) + ways), total), -1, axis)


# --- normalisation ------------------------------------------------------------------------------------------------


def _per_channel(parameter: Array | None, x: Array, default: float) -> Array:
    """|γ| or |β|, in a shape that broadcasts with (N, C, …)."""
    shape = (1, -1, *(1,) * (x.ndim - 2))
    return np.full((1,) * x.ndim, default) if parameter is None else np.abs(_wide(parameter)).reshape(shape)


def _batch_norm(arrays: Any, logs: Any, settings: Mapping[str, Any], need: Array) -> Array:
    x, gamma, beta, mean, variance = (*arrays, None, None, None, None)[:5]
    g, b = _per_channel(gamma, x, 1.0), _per_channel(beta, x, 0.0)
    eps = float(settings.get("eps", 1e-5))
    if batch_statistics(arrays, settings):
        parts = [np.broadcast_to(array, x.shape) for array in (x, logs[0], g, b, need)]
        return _each_set([np.moveaxis(part, 1, 0).reshape(x.shape[1], -1) for part in parts], gamma is not None, eps, x)
    shape = (1, -1, *(1,) * (x.ndim - 2))
    m, v = _wide(mean).reshape(shape), _wide(variance).reshape(shape)
    s = 1 / np.sqrt(v + eps)
    wide = _wide(x)
    centred = np.abs(wide - m)
    total = g * s * (np.abs(wide) + np.abs(m)) + 0.5 * g * centred * s**3 * np.abs(v) + b
    if gamma is not None:
        total = total + centred * s * g
    return share_of(log(g * s * np.abs(wide)) + logs[0], total)


def _each_set(parts: list[Array], has_gamma: bool, eps: float, x: Array) -> Array:
    """Sets as rows (x, logs, |γ|, |β|, need), those that are needed; back in the shape of a batch's x."""
    found = _rows(parts, has_gamma, eps)
    return np.moveaxis(found.reshape(x.shape[1], x.shape[0], *x.shape[2:]), 0, 1)


def _rows(parts: list[Array], has_gamma: bool, eps: float) -> Array:
    x, logs, g, b, need = parts
    wanted = np.flatnonzero(need.any(axis=1))
    out = np.full(x.shape, -np.inf)
    out[wanted] = standardised(Sets(x[wanted], logs[wanted], g[wanted], b[wanted], has_gamma, eps))
    return out


def _layer_norm(arrays: Any, logs: Any, settings: Mapping[str, Any], need: Array) -> Array:
    x, gamma, beta = (*arrays, None, None)[:3]
    axes = int(settings.get("axes", 1))
    size = int(np.prod(x.shape[x.ndim - axes :]))
    g = np.ones(size) if gamma is None else np.abs(_wide(gamma)).ravel()
    b = np.zeros(size) if beta is None else np.abs(_wide(beta)).ravel()
    rows = [part.reshape(-1, size) for part in (x, logs[0], need)]
    spread = [np.broadcast_to(part, rows[0].shape) for part in (g, b)]
    found = _rows([*rows[:2], *spread, rows[2]], gamma is not None, float(settings.get("eps", 1e-5)))
    return found.reshape(x.shape)


def _group_norm(arrays: Any, logs: Any, settings: Mapping[str, Any], need: Array) -> Array:
    x, gamma, beta = (*arrays, None, None)[:3]
    spread = [np.broadcast_to(_per_channel(p, x, default), x.shape) for p, default in ((gamma, 1.0), (beta, 0.0))]
    rows = x.shape[0] * int(settings.get("groups", 1))
    parts = [part.reshape(rows, -1) for part in (x, logs[0], *spread, need)]
    return _rows(parts, gamma is not None, float(settings.get("eps", 1e-5))).reshape(x.shape)


_RULES: Mapping[str, Callable[[Any, Any, Mapping[str, Any], Array], Array]] = {
    "convolution": convolve,
    "unrolled_convolution": convolve,
    "pointwise_convolution": convolve,
    "true_convolution": convolve_turned,
    "depthwise_convolution": convolve_channels,
    "linear": linear,
    "max_pool": _max_pool,
    "average_pool": _average_pool,
    "soft_pool": _soft_pool,
    "adaptive_average_pool": _adaptive,
    "global_average_pool": _global,
    "average_pool_3d": _boxes,
    "spatial_pyramid_pool": _pyramid,
    "matmul": _matmul,
    "mean": _mean,
    "largest": _largest,
    "adaptive_max_pool": _adaptive_max,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
}

"""Which numbers of its inputs an operation reads to make certain outputs, whatever the values are.

A mask says which outputs are meant; `reads` gives the masks of the inputs. Each rule is one step for whole arrays. An
operation without a rule of its own is asked for the textbook's terms of every output in turn: as exact, and slower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.explain.walk import COPIES, elementwise_of, origins, recurrence_of
from pellucid.textbook import adaptive_pooling, boxes, convolution, pooling
from pellucid.textbook.arrays import crop_planes, fold, pad_planes, pair, windows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pellucid.explain.node import Array
    from pellucid.textbook import Operation

Masks = dict[str, "Array"]


def reads(
    operation: Operation, masks: Mapping[str, Array], arrays: Sequence[Array | None], settings: Mapping[str, Any]
) -> Masks:
    """What the outputs in `masks` (by name of the output) read: a mask for each argument, and each value inside.

    An argument that is missing is one that no number, or every number, of can matter to the caller: weights.
    """
    recurrence = recurrence_of(operation)
    if recurrence is not None:
        return _recurrent(recurrence.states, masks, arrays)
    first = operation.outputs[0]
    found: Masks = {}
    for output, mask in masks.items():
        if output == first and operation.name in _RULES:
            part = _RULES[operation.name](mask, arrays, settings)
        elif output == first and elementwise_of(operation) is not None:
            names = operation.argument_names(len(arrays))
            part = {name: _narrowed(mask, a.shape) for name, a in zip(names, arrays, strict=True) if a is not None}
        elif output == first and operation.name in COPIES:
            part = _copied(operation, mask, arrays, settings)
        else:
            part = by_terms(operation, output, mask, arrays, settings)
        for name, read in part.items():
            found[name] = found[name] | read if name in found else read
    return found


def by_terms(
    operation: Operation, output: str, mask: Array, arrays: Sequence[Array | None], settings: Mapping[str, Any]
) -> Masks:
    """The same from the textbook's terms, one output at a time: what stands in a term, or multiplies one."""
    names = operation.argument_names(len(arrays))
    found = {n: np.zeros(a.shape, dtype=bool) for n, a in zip(names, arrays, strict=True) if a is not None}
    more = {"output": output} if len(operation.outputs) > 1 or output != operation.outputs[0] else {}
    for index in np.argwhere(mask):
        for group in operation.terms(tuple(index.tolist()), *arrays, **settings, **more).groups:
            for part in (group, group.factor):
                if part is not None and part.source in found:
                    found[part.source][tuple(part.index.T)] = True
    return found


def _any(mask: Array, axis: int | tuple[int, ...], keepdims: bool = False) -> Array:
    """Whether any is True along the axes, as an array always."""
    return np.asarray(np.any(mask, axis=axis, keepdims=keepdims))


# --- element by element, and copies -------------------------------------------------------------------------------


def _narrowed(mask: Array, shape: tuple[int, ...]) -> Array:
    """The way back of broadcasting: a number is read if anything that it was used for is meant."""
    mask = _any(mask, axis=tuple(range(mask.ndim - len(shape))))
    single = tuple(a for a, size in enumerate(shape) if size == 1)
    return _any(mask, axis=single, keepdims=True).reshape(shape)


def _copied(operation: Operation, mask: Array, arrays: Sequence[Array | None], settings: Mapping[str, Any]) -> Masks:
    names = operation.argument_names(len(arrays))
    sizes = [0 if array is None else array.size for array in arrays]
    read = np.zeros(1 + sum(sizes), dtype=bool)
    read[origins(operation, arrays, settings)[mask]] = True
    parts = np.split(read[1:], np.cumsum(sizes)[:-1])
    return {
        name: part.reshape(array.shape)
        for name, part, array in zip(names, parts, arrays, strict=True)
        if array is not None
    }


# --- windows ------------------------------------------------------------------------------------------------------


def _channels(mask_noij: Array, groups: int, each: int) -> Array:
    """(N, O, I, J) -> (N, G·each, I, J): every channel of a group is read by all outputs of the group."""
    n, o, high, wide = mask_noij.shape
    any_ngij = _any(mask_noij.reshape(n, groups, o // groups, high, wide), axis=2)
    return np.repeat(any_ngij, each, axis=1)


def _weights(mask_noij: Array, arrays: Sequence[Array | None]) -> Masks:
    """The kernels and biases of the outputs meant (they matter only where they were computed from an input)."""
    used = _any(mask_noij, axis=(0, 2, 3))
    found = {}
    for name, array in zip(("w", "b"), arrays[1:], strict=False):
        if array is not None:
            found[name] = np.broadcast_to(used.reshape(-1, *(1,) * (array.ndim - 1)), array.shape)
    return found


def _convolution(mask: Array, arrays: Sequence[Array | None], settings: Mapping[str, Any]) -> Masks:
    x, w = arrays[0], arrays[1]
    assert x is not None
    assert w is not None
    place = convolution.geometry(**settings)
    padded = (x.shape[2] + sum(place.pads[0]), x.shape[3] + sum(place.pads[1]))
    spread = np.broadcast_to(
        _channels(mask, place.groups, w.shape[1])[..., None, None],
        (mask.shape[0], x.shape[1], *mask.shape[2:], *w.shape[2:]),
    )
    return {
        "x": crop_planes(fold(spread, padded, place.stride, place.dilation), place.pads),
        **_weights(mask, arrays),
    }


def _depthwise(mask: Array, arrays: Sequence[Array | None], settings: Mapping[str, Any]) -> Masks:
    assert arrays[0] is not None
    return _convolution(mask, arrays, {**settings, "groups": arrays[0].shape[1]})


def _separable(mask: Array, arrays: Sequence[Array | None], settings: Mapping[str, Any]) -> Masks:
    x, v, w = arrays[:3]
    assert v is not None
    like = np.broadcast_to(False, (mask.shape[0], v.shape[0], *mask.shape[2:]))
    return _depthwise(_convolution(mask, (like, w), {})["x"], (x, v), settings)


def _transposed(mask: Array, arrays: Sequence[Array | None], settings: Mapping[str, Any]) -> Masks:
    x, w = arrays[0], arrays[1]
    assert x is not None
    assert w is not None
    place = convolution.geometry(**{k: v for k, v in settings.items() if k in {"stride", "padding", "dilation"}})
    groups = int(settings.get("groups", 1))
    view = windows(pad_planes(mask, place.pads, False), (w.shape[2], w.shape[3]), place.stride, place.dilation)
    read = _any(view, axis=(-2, -1))[:, :, : x.shape[2], : x.shape[3]]
    return {"x": _channels(read, groups, x.shape[1] // groups)}


def _pool(mask: Array, arrays: Sequence[Array | None], settings: Mapping[str, Any]) -> Masks:
    assert arrays[0] is not None
    settings = {name: value for name, value in settings.items() if name != "count_padding"}
    where = pooling.place(arrays[0], **settings)
    return {"x": where.back(np.broadcast_to(mask[..., None, None], (*mask.shape, *where.kernel)))}


def _adaptive(mask: Array, arrays: Sequence[Array | None], settings: Mapping[str, Any]) -> Masks:
    x = arrays[0]
    assert x is not None
    high, wide = pair(settings["size"], "size", 1)
    a_ih = adaptive_pooling.shares(x.shape[2], high) > 0
    b_jw = adaptive_pooling.shares(x.shape[3], wide) > 0
    reach = a_ih.T.astype(np.float32) @ mask.astype(np.float32) @ b_jw.astype(np.float32)
    return {"x": reach > 0}


def _global(mask: Array, arrays: Sequence[Array | None], settings: Mapping[str, Any]) -> Masks:
    return _adaptive(mask, arrays, {**settings, "size": 1})


def _boxes(mask: Array, arrays: Sequence[Array | None], settings: Mapping[str, Any]) -> Masks:
    assert arrays[0] is not None
    three = [(weights > 0).astype(np.float32) for weights in boxes.matrices(arrays[0], **settings)]
    return {"x": np.einsum("nctij,td,ih,jw->ncdhw", mask.astype(np.float32), *three, optimize=True) > 0}


def _pyramid(mask: Array, arrays: Sequence[Array | None], settings: Mapping[str, Any]) -> Masks:
    x = arrays[0]
    assert x is not None
    n, c, high, wide = x.shape
    read, start = np.zeros(x.shape, dtype=bool), 0
    for level in settings.get("levels", (1, 2, 4)):
        bins_ncij = mask[:, start : start + c * level**2].reshape(n, c, level, level)
        for i, rows in enumerate(adaptive_pooling.bins(high, level)):
            for j, columns in enumerate(adaptive_pooling.bins(wide, level)):
                read[:, :, slice(*rows), slice(*columns)] |= bins_ncij[:, :, i, j, None, None]
        start += c * level**2
    return {"x": read}


# --- sums and sets ------------------------------------------------------------------------------------------------


def _linear(mask: Array, arrays: Sequence[Array | None], _: Mapping[str, Any]) -> Masks:
    x, w, b = (*arrays, None)[:3]
    assert x is not None
    assert w is not None
    used = _any(mask.reshape(-1, mask.shape[-1]), axis=0)
    found = {"x": np.broadcast_to(_any(mask, axis=-1, keepdims=True), x.shape).copy()}
    found["w"] = np.broadcast_to(used[:, None], w.shape)
    return found if b is None else {**found, "b": used}


def _matmul(mask: Array, arrays: Sequence[Array | None], _: Mapping[str, Any]) -> Masks:
    a, b = arrays
    assert a is not None
    assert b is not None
    rows, columns = _any(mask, axis=-1, keepdims=True), _any(mask, axis=-2, keepdims=True)
    return {
        "a": _narrowed(np.broadcast_to(rows, (*mask.shape[:-1], a.shape[-1])), a.shape),
        "b": _narrowed(np.broadcast_to(columns, (*mask.shape[:-2], *b.shape[-2:])), b.shape),
    }


def _mean(mask: Array, arrays: Sequence[Array | None], settings: Mapping[str, Any]) -> Masks:
    x, axes = arrays[0], settings.get("axes")
    assert x is not None
    over = range(x.ndim) if axes is None else [int(axis) for axis in axes]
    kept = [1 if axis in over else size for axis, size in enumerate(x.shape)]
    return {"x": np.broadcast_to(mask.reshape(kept), x.shape).copy()}


def _batch_norm(mask: Array, arrays: Sequence[Array | None], settings: Mapping[str, Any]) -> Masks:
    if not batch_statistics(arrays, settings):
        return {"x": mask.copy(), **_per_channel(mask, arrays, range(1, 5))}
    over = tuple(axis for axis in range(mask.ndim) if axis != 1)
    return {
        "x": np.broadcast_to(_any(mask, axis=over, keepdims=True), mask.shape).copy(),
        **_per_channel(mask, arrays, (1, 2)),
    }


def batch_statistics(arrays: Sequence[Array | None], settings: Mapping[str, Any]) -> bool:
    """Whether a batch normalisation took mean and variance from the batch, not from running averages."""
    running = [arrays[k] if k < len(arrays) else None for k in (3, 4)]
    return bool(settings.get("training", False)) or any(array is None for array in running)


def _per_channel(mask: Array, arrays: Sequence[Array | None], which: Any) -> Masks:
    names = ("x", "gamma", "beta", "running_mean", "running_variance")
    used = _any(mask, axis=tuple(axis for axis in range(mask.ndim) if axis != 1))
    return {names[k]: used for k in which if k < len(arrays) and arrays[k] is not None}


def _layer_norm(mask: Array, _: Sequence[Array | None], settings: Mapping[str, Any]) -> Masks:
    over = tuple(range(mask.ndim - int(settings.get("axes", 1)), mask.ndim))
    return {"x": np.broadcast_to(_any(mask, axis=over, keepdims=True), mask.shape).copy()}


def _group_norm(mask: Array, _: Sequence[Array | None], settings: Mapping[str, Any]) -> Masks:
    rows = mask.reshape(mask.shape[0], int(settings.get("groups", 1)), -1)
    return {"x": np.broadcast_to(_any(rows, axis=2, keepdims=True), rows.shape).reshape(mask.shape).copy()}


def _line(mask: Array, _: Sequence[Array | None], settings: Mapping[str, Any]) -> Masks:
    axis = int(settings.get("axis", -1))
    return {"x": np.broadcast_to(_any(mask, axis=axis, keepdims=True), mask.shape).copy()}


# --- through time -------------------------------------------------------------------------------------------------


def _recurrent(states: Sequence[str], masks: Mapping[str, Array], arrays: Sequence[Array | None]) -> Masks:
    """A state at t reads everything at t of the layer below, and the state at t − 1; a cell c only its own unit there.

    Every gate mixes all units, so one unit of a state is enough for all of the input at that step.
    """
    x = arrays[0]
    assert x is not None
    layers = (len(arrays) - 1 - len(states)) // 4
    w_hh = arrays[len(states) + 2]
    assert w_hh is not None
    shape = (x.shape[0], x.shape[1], w_hh.shape[1])
    inside = {f"{layer}.{s}": np.zeros(shape, dtype=bool) for layer in range(layers) for s in states}
    gates = np.zeros((layers, *shape[:2]), dtype=bool)
    for output, mask in masks.items():
        if output == "y":
            inside[f"{layers - 1}.h"] |= mask
        elif output.endswith("_n"):
            for layer in range(layers):
                inside[f"{layer}.{output[0]}"][:, -1] |= mask[layer]
        elif output in inside:
            inside[output] |= mask
        else:
            gates[int(output.split(".", maxsplit=1)[0])] |= _any(mask, axis=2)
    read_x = np.zeros(x.shape, dtype=bool)
    starts = {s: np.zeros((layers, shape[0], shape[2]), dtype=bool) for s in states}
    for layer in reversed(range(layers)):
        for t in reversed(range(shape[1])):
            now = {s: inside[f"{layer}.{s}"][:, t] for s in states}
            before = {s: inside[f"{layer}.{s}"][:, t - 1] if t else starts[s][layer] for s in states}
            if "c" in states:
                now["c"] |= now["h"]
                before["c"] |= now["c"]
            mixes = gates[layer, :, t] | np.any([m.any(axis=1) for m in now.values()], axis=0)
            before["h"] |= mixes[:, None]
            below = read_x[:, t] if layer == 0 else inside[f"{layer - 1}.h"][:, t]
            below |= mixes[:, None]
    return {"x": read_x, **inside, **{f"{s}0": mask for s, mask in starts.items()}}


def _cell(mask: Array, arrays: Sequence[Array | None], _: Mapping[str, Any]) -> Masks:
    """One step: a unit of the new state reads all of x and of the state before, and its own unit of the cell before."""
    x, h_prev = arrays[:2]
    assert x is not None
    assert h_prev is not None
    rows = _any(mask, axis=1, keepdims=True)
    read = {"x": np.broadcast_to(rows, x.shape).copy(), "h_prev": np.broadcast_to(rows, h_prev.shape).copy()}
    return {**read, "c_prev": mask.copy()}


_RULES: Mapping[str, Callable[[Array, Sequence[Array | None], Mapping[str, Any]], Masks]] = {
    "convolution": _convolution,
    "true_convolution": _convolution,
    "unrolled_convolution": _convolution,
    "pointwise_convolution": _convolution,
    "depthwise_convolution": _depthwise,
    "separable_convolution": _separable,
    "transposed_convolution": _transposed,
    "max_pool": _pool,
    "average_pool": _pool,
    "soft_pool": _pool,
    "adaptive_average_pool": _adaptive,
    "adaptive_max_pool": _adaptive,
    "global_average_pool": _global,
    "average_pool_3d": _boxes,
    "spatial_pyramid_pool": _pyramid,
    "linear": _linear,
    "matmul": _matmul,
    "mean": _mean,
    "largest": _mean,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "softmax": _line,
    "log_softmax": _line,
    "rnn_cell": _cell,
    "lstm_cell": _cell,
}

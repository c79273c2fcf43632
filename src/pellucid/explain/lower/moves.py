"""Rules for what moves numbers: reshapes, permutations, parts, joins, borders; and sums over axes."""

from __future__ import annotations

import math
from typing import Any

from pellucid.explain.lower.call import Call, Lowered, Rule, Rules, Shape, from_front, is_float, keeps_type
from pellucid.explain.lower.taken import MODES, bordered, cropped


def reshaped(call: Call, shape: Shape, name: str = "self") -> Lowered:
    """The same numbers in another shape, in reading order."""
    return Lowered("reshape", (call[name],), {"shape": list(shape)})


def to_shape(name: str) -> Rule:
    """A reshape to the shape given as `name`, one size of which may be −1: what is left."""

    def rule(call: Call) -> Lowered | None:
        sizes, total = [int(size) for size in call[name]], math.prod(call.shape("self"))
        known = math.prod(size for size in sizes if size != -1)
        return reshaped(call, tuple(total // max(known, 1) if size == -1 else size for size in sizes))

    return rule


def to_shape_of_other(call: Call) -> Lowered | None:
    """A reshape to another tensor's shape."""
    return reshaped(call, call.shape("other"))


def flatten(call: Call) -> Lowered | None:
    """Axes in one; the textbook's flatten where they go on to the last."""
    shape = call.shape("self")
    start, end = call.axis("start_dim"), call.axis("end_dim")
    if shape and end == len(shape) - 1:
        return Lowered("flatten", (call["self"],), {"start": start})
    return reshaped(call, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


def unflatten(call: Call) -> Lowered | None:
    """One axis as several."""
    shape, axis, sizes = call.shape("self"), call.axis(), [int(size) for size in call["sizes"]]
    known = math.prod(size for size in sizes if size != -1)
    parts = [shape[axis] // max(known, 1) if size == -1 else size for size in sizes]
    return reshaped(call, (*shape[:axis], *parts, *shape[axis + 1 :]))


def squeeze(call: Call) -> Lowered | None:
    """Without axes of size 1: those named, or all."""
    shape, asked = call.shape("self"), call.get("dim")
    named = range(len(shape)) if asked is None else [asked] if isinstance(asked, int) else asked
    axes = {from_front(axis, len(shape)) for axis in named}
    return reshaped(call, tuple(size for axis, size in enumerate(shape) if size != 1 or axis not in axes))


def unsqueeze(call: Call) -> Lowered | None:
    """With an axis of size 1 more."""
    shape, axis = call.shape("self"), call.axis(extra=1)
    return reshaped(call, (*shape[:axis], 1, *shape[axis:]))


def permuted(call: Call, axes: list[int]) -> Lowered:
    """The axes in another order."""
    return Lowered("permute", (call["self"],), {"axes": axes})


def permute(call: Call) -> Lowered | None:
    """The axes in the order given."""
    return permuted(call, [from_front(axis, len(call["dims"])) for axis in call["dims"]])


def exchange(first: str, second: str) -> Rule:
    """Two axes exchanged."""

    def rule(call: Call) -> Lowered | None:
        a, b = call.axis(first), call.axis(second)
        axes = list(range(len(call.shape("self"))))
        if axes:
            axes[a], axes[b] = axes[b], axes[a]
        return permuted(call, axes)

    return rule


def turned_round(call: Call) -> Lowered | None:
    """All axes in the opposite order (a matrix transposed)."""
    return permuted(call, list(range(len(call.shape("self"))))[::-1])


def moved(call: Call) -> Lowered | None:
    """Some axes moved to other places, the rest in order."""
    rank = len(call.shape("self"))
    pairs = [[call[name]] if isinstance(call[name], int) else call[name] for name in ("source", "destination")]
    source, destination = ([from_front(axis, rank) for axis in axes] for axes in pairs)
    axes = [axis for axis in range(rank) if axis not in source]
    for to, axis in sorted(zip(destination, source, strict=True)):
        axes.insert(to, axis)
    return permuted(call, axes)


def part(call: Call, axis: int, start: int, stop: int, step: int = 1) -> Lowered:
    """A stretch of one axis."""
    return Lowered("slice", (call["self"],), {"axis": axis, "start": start, "stop": stop, "step": step})


def cut(call: Call) -> Lowered | None:
    """A slice, its ends as Python counts them."""
    axis, size = call.axis(), call.shape("self")[call.axis()]
    start, stop, step = slice(call["start"], call["end"], call["step"]).indices(size)
    return part(call, axis, start, max(start, stop), step)


def narrow(call: Call) -> Lowered | None:
    """So many from a place on."""
    if not isinstance(call["start"], int):
        return None
    axis = call.axis()
    start = from_front(call["start"], call.shape("self")[axis]) if call["start"] < 0 else call["start"]
    return part(call, axis, start, start + call["length"])


def select(call: Call) -> Lowered | None:
    """One place of an axis."""
    axis = call.axis()
    return picked(call, axis, from_front(call["index"], call.shape("self")[axis]))


def picked(call: Call, axis: int, index: int) -> Lowered:
    """One place of an axis, the axis gone."""
    return Lowered("select", (call["self"],), {"axis": axis, "index": index})


def expand(call: Call) -> Lowered | None:
    """Axes of size 1 repeated; −1 leaves one as it is."""
    shape, sizes = call.shape("self"), [int(size) for size in call["size"]]
    lead = len(sizes) - len(shape)
    full = [shape[axis - lead] if size == -1 else size for axis, size in enumerate(sizes)]
    return Lowered("expand", (call["self"],), {"shape": full})


def expand_as(call: Call) -> Lowered | None:
    """Axes of size 1 repeated, as in another tensor."""
    return Lowered("expand", (call["self"],), {"shape": list(call.shape("other"))})


def copied(call: Call) -> Lowered | None:
    """A tensor written over another: its numbers, in the other's shape."""
    if not (is_float(call["self"]) and is_float(call["src"])):
        return None
    return Lowered("expand", (call["src"],), {"shape": list(call.shape("self"))})


def concatenate(call: Call) -> Lowered | None:
    """Tensors one behind the other; the engine skips those of shape (0,), whatever the others have."""
    tensors = tuple(call["tensors"])
    shapes = [tuple(call.shape_of(tensor)) for tensor in tensors]
    if any(len(shape) != len(shapes[0]) for shape in shapes):
        return None
    return Lowered("concatenate", tensors, {"axis": from_front(call["dim"], len(shapes[0]))})


def pad(call: Call) -> Lowered | None:
    """A border of one value, or of numbers of x itself; widths come last axis first, and below 0 they cut."""
    flat, mode = [int(width) for width in call["pad"]], call.get("mode", "constant")
    if mode in MODES:
        return bordered(call, mode, flat)
    if mode != "constant" or isinstance(call["value"], complex):
        return None
    if min(flat, default=0) < 0:
        return cropped(call, flat)
    widths = [[flat[at], flat[at + 1]] for at in range(0, len(flat), 2)][::-1]
    return Lowered("padding", (call["self"],), {"widths": widths, "value": float(call["value"] or 0.0)})


def reduced(average: bool) -> Rule:
    """The mean or the sum over some axes, or all."""

    def rule(call: Call) -> Lowered | None:
        if not keeps_type(call) or not is_float(call["self"]):
            return None
        shape, asked = call.shape("self"), call.get("dim")
        axes = [asked] if isinstance(asked, int) else list(asked or range(len(shape)))
        settings: dict[str, Any] = {
            "axes": sorted(from_front(axis, len(shape)) for axis in axes) if shape else [],
            "average": average,
            "keep": bool(call.get("keepdim", False)),
        }
        return Lowered("mean", (call["self"],), settings)

    return rule


def stack(call: Call) -> Lowered | None:
    """Tensors side by side along a new axis."""
    tensors = tuple(call["tensors"])
    rank = len(tuple(call.shape_of(tensors[0]))) + 1
    return Lowered("stack", tensors, {"axis": from_front(call["dim"], rank)})


def largest(shared: bool) -> Rule:
    """The largest along one axis, the first of equal ones taking the gradient; along several, all equal ones."""

    def rule(call: Call) -> Lowered | None:
        if not is_float(call["self"]):
            return None
        rank, asked = len(call.shape("self")), call.get("dim")
        axes = [asked] if isinstance(asked, int) else list(asked or range(rank))
        chosen = sorted(from_front(axis, rank) for axis in axes) if rank else []
        settings = {"axes": chosen, "shared": shared, "keep": bool(call.get("keepdim", False))}
        return Lowered("largest", (call["self"],), settings)

    return rule


def euclidean_norm(call: Call) -> Lowered | None:
    """The length along axes; of other powers it is another norm."""
    power = call["ord"]
    if power != 2 or not keeps_type(call) or not is_float(call["self"]):
        return None
    rank, asked = len(call.shape("self")), call["dim"]
    axes = [asked] if isinstance(asked, int) else list(asked or range(rank))
    chosen = sorted(from_front(axis, rank) for axis in axes) if rank else []
    return Lowered("euclidean_norm", (call["self"],), {"axes": chosen, "keep": bool(call["keepdim"])})


RULES: Rules = {
    "aten.stack.default": stack,
    "aten.amax.default": largest(shared=True),
    "aten.max.dim": largest(shared=False),
    "aten.linalg_vector_norm.default": euclidean_norm,
    "aten.view.default": to_shape("size"),
    "aten._unsafe_view.default": to_shape("size"),
    "aten.reshape.default": to_shape("shape"),
    "aten.reshape_as.default": to_shape_of_other,
    "aten.view_as.default": to_shape_of_other,
    "aten.flatten.using_ints": flatten,
    "aten.unflatten.int": unflatten,
    "aten.squeeze.default": squeeze,
    "aten.squeeze.dim": squeeze,
    "aten.squeeze.dims": squeeze,
    "aten.unsqueeze.default": unsqueeze,
    "aten.permute.default": permute,
    "aten.transpose.int": exchange("dim0", "dim1"),
    "aten.swapaxes.default": exchange("axis0", "axis1"),
    "aten.swapdims.default": exchange("dim0", "dim1"),
    "aten.t.default": turned_round,
    "aten.numpy_T.default": turned_round,
    "aten.movedim.int": moved,
    "aten.movedim.intlist": moved,
    "aten.slice.Tensor": cut,
    "aten.narrow.default": narrow,
    "aten.select.int": select,
    "aten.expand.default": expand,
    "aten.expand_as.default": expand_as,
    "aten.copy.default": copied,
    "aten.cat.default": concatenate,
    "aten.concat.default": concatenate,
    "aten.pad.default": pad,
    "aten.constant_pad_nd.default": pad,
    "aten.mean.default": reduced(True),
    "aten.mean.dim": reduced(True),
    "aten.sum.default": reduced(False),
    "aten.sum.dim_IntList": reduced(False),
}


# --- one of several parts -----------------------------------------------------------------------------------------


def chunk(call: Call, number: int) -> Lowered | None:
    """Part `number` of so many, ⌈size/chunks⌉ long, the last one shorter."""
    size = call.shape("self")[call.axis()]
    return stretch(call, -(-size // int(call["chunks"])), number)


def split(call: Call, number: int) -> Lowered | None:
    """Part `number`, every part of one given length or each of its own."""
    sizes = call.get("split_size", call.get("split_sizes"))
    if isinstance(sizes, int):
        return stretch(call, sizes, number)
    start = sum(int(size) for size in sizes[:number])
    return part(call, call.axis(), start, start + int(sizes[number]))


def stretch(call: Call, length: int, number: int) -> Lowered:
    """Part `number` of parts so long."""
    size = call.shape("self")[call.axis()]
    return part(call, call.axis(), number * length, min((number + 1) * length, size))


def unbind(call: Call, number: int) -> Lowered | None:
    """Place `number` of the axis."""
    return picked(call, call.axis(), number)


PARTS = {
    "aten.chunk.default": chunk,
    "aten.split.Tensor": split,
    "aten.split.sizes": split,
    "aten.split_with_sizes.default": split,
    "aten.unbind.int": unbind,
}

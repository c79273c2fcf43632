"""Rules for what takes places along axes in another order, or more than once: turns, shuffles, repeats, borders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pellucid.explain.lower.call import Call, Lowered, Rule, Rules, from_front

Places = list[int]


def taken(call: Call, lists: dict[int, Places], name: str = "self") -> Lowered:
    """Places along some axes; along the others all of them in order."""
    return Lowered("take", (call[name],), {"places": [lists.get(axis) for axis in range(len(call.shape(name)))]})


def flip(call: Call) -> Lowered | None:
    """Axes turned round."""
    shape = call.shape("self")
    axes = [from_front(axis, len(shape)) for axis in call["dims"]]
    return taken(call, {axis: list(range(shape[axis]))[::-1] for axis in axes})


def roll(call: Call) -> Lowered | None:
    """Places pushed along axes, in again at the other end; without axes it is one long row, which this is not."""
    shape = call.shape("self")
    shifts, dims = ([call[name]] if isinstance(call[name], int) else list(call[name]) for name in ("shifts", "dims"))
    axes = [from_front(axis, len(shape)) for axis in dims]
    if not axes or len(set(axes)) != len(axes):
        return None
    return taken(call, {a: [(i - by) % shape[a] for i in range(shape[a])] for a, by in zip(axes, shifts, strict=True)})


def repeat(name: str) -> Rule:
    """The whole again and again along axes that it has."""

    def rule(call: Call) -> Lowered | None:
        shape, times = call.shape("self"), [int(time) for time in call[name]]
        if len(times) > len(shape):
            return None
        lead = len(shape) - len(times)
        return taken(call, {lead + k: list(range(shape[lead + k])) * time for k, time in enumerate(times) if time != 1})

    return rule


def repeat_interleave(call: Call) -> Lowered | None:
    """Every place of one axis so many times."""
    if call["dim"] is None:
        return None
    axis = call.axis()
    return taken(call, {axis: [i for i in range(call.shape("self")[axis]) for _ in range(int(call["repeats"]))]})


def channel_shuffle(call: Call) -> Lowered | None:
    """Channels split into groups, read across them."""
    channels, groups = call.shape("self")[1], int(call["groups"])
    return taken(call, {1: [(j % groups) * (channels // groups) + j // groups for j in range(channels)]})


# --- borders ------------------------------------------------------------------------------------------------------


def reflected(place: int, size: int) -> int:
    """Mirrored at the ends, which are not repeated."""
    return -place if place < 0 else 2 * (size - 1) - place if place >= size else place


def nearest_end(place: int, size: int) -> int:
    """The end itself, again and again."""
    return min(max(place, 0), size - 1)


def round_again(place: int, size: int) -> int:
    """From the other end."""
    return place % size


#: What stands on the border, by the engine's name for it.
MODES: dict[str, Callable[[int, int], int]] = {
    "reflect": reflected,
    "replicate": nearest_end,
    "circular": round_again,
}


def bordered(call: Call, mode: str, flat: list[int]) -> Lowered:
    """A border of numbers of x itself; widths come last axis first, and cut where they are below 0."""
    shape = call.shape("self")
    lists = {}
    for number in range(len(flat) // 2):
        axis = len(shape) - 1 - number
        before, after = flat[2 * number], flat[2 * number + 1]
        if before or after:
            lists[axis] = [MODES[mode](i, shape[axis]) for i in range(-before, shape[axis] + after)]
    return taken(call, lists)


def border(mode: str) -> Rule:
    """A border as an operation of its own."""

    def rule(call: Call) -> Lowered | None:
        flat = [int(width) for width in call["padding"]]
        return bordered(call, mode, flat)

    return rule


def cropped(call: Call, flat: list[int]) -> Lowered | None:
    """A border below 0 on every side: a part of x."""
    return bordered(call, "replicate", flat) if max(flat) <= 0 else None


# --- nearest pixels -----------------------------------------------------------------------------------------------


def nearest(call: Call) -> Lowered | None:
    """An image at another size, every pixel the nearest one's; in the single precision in which the engine counts."""
    name = "input" if "input" in call.arguments else "self"
    shape = call.shape(name)
    sizes = [int(size) for size in call["output_size"]] if call["output_size"] else None
    factors = call.get("scale_factors") or [call.get("scales_h"), call.get("scales_w")]
    lists = {}
    for k, size in enumerate(shape[2:]):
        factor = factors[k]
        wide = sizes[k] if sizes is not None else int(size * factor)
        step = np.float32(1 / factor) if factor else np.float32(size) / np.float32(wide)
        if wide == size:
            continue
        if wide == 2 * size:
            lists[2 + k] = [i // 2 for i in range(wide)]
        else:
            lists[2 + k] = [min(int(np.floor(np.float32(i) * step)), size - 1) for i in range(wide)]
    return taken(call, lists, name)


RULES: Rules = {
    "aten.flip.default": flip,
    "aten.roll.default": roll,
    "aten.repeat.default": repeat("repeats"),
    "aten.tile.default": repeat("dims"),
    "aten.repeat_interleave.self_int": repeat_interleave,
    "aten.channel_shuffle.default": channel_shuffle,
    "aten.reflection_pad2d.default": border("reflect"),
    "aten.replication_pad2d.default": border("replicate"),
    "aten.upsample_nearest2d.vec": nearest,
    "aten.upsample_nearest2d.default": nearest,
}

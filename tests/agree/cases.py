"""For each operation of the textbook: random examples of it, and the same computation in torch.

`CASES[name](pick, rng)` gives an `Example`. `pick(low, high)` chooses a whole number (Hypothesis does, or a generator),
`rng` fills the arrays. Numbers meant for functions with kinks stand apart from each other and from every kink by more
than a central difference moves them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F  # noqa: N812  its name everywhere

Array = npt.NDArray[Any]
Pick = Callable[[int, int], int]
Tensors = dict[str, torch.Tensor]


@dataclass
class Example:
    """Arrays in the operation's order (None: left out), its attributes, and torch's outputs and interior by name."""

    arrays: list[Array | None]
    attributes: dict[str, Any]
    torch: Callable[..., Tensors]
    interior: tuple[str, ...] = ()
    pulled: tuple[str, ...] = field(default=())


Case = Callable[[Pick, np.random.Generator], Example]


def apart(rng: np.random.Generator, shape: tuple[int, ...], step: float = 0.05) -> Array:
    """Different numbers around 0, at least `step` apart, and 0.3 of it or more from every whole multiple of it."""
    size = int(np.prod(shape))
    return ((rng.permutation(size) - size // 2 + 0.3) * step).reshape(shape)


def optional(pick: Pick, array: Array) -> Array | None:
    return array if pick(0, 1) else None


def image(pick: Pick, rng: np.random.Generator, channels: int | None = None, low: int = 3, high: int = 7) -> Array:
    c = pick(1, 3) if channels is None else channels
    return rng.standard_normal((pick(1, 2), c, pick(low, high), pick(low, high)))


# --- linear and convolution ---------------------------------------------------------------------------------------


def linear(pick: Pick, rng: np.random.Generator) -> Example:
    lead = [(), (pick(1, 4),), (2, pick(1, 3))][pick(0, 2)]
    d, o = pick(1, 6), pick(1, 5)
    arrays = [rng.standard_normal((*lead, d)), rng.standard_normal((o, d)), optional(pick, rng.standard_normal(o))]
    return Example(arrays, {}, lambda x, w, b: {"y": F.linear(x, w, b)})


def placement(pick: Pick, kernel: tuple[int, int], even: bool = False) -> dict[str, Any]:
    """A stride, padding and dilation, each as a number or a pair (or padding as two pairs)."""
    stride = [pick(1, 3), (pick(1, 3), pick(1, 3))][pick(0, 1)]
    dilation = [pick(1, 2), (pick(1, 2), pick(1, 2))][pick(0, 1)]
    reach = kernel[0] // 2 + 1, kernel[1] // 2 + 1
    pads: list[Any] = [pick(0, min(reach)), (pick(0, reach[0]), pick(0, reach[1]))]
    if not even:
        pads.append(((pick(0, 2), pick(0, 2)), (pick(0, 2), pick(0, 2))))
    return {"stride": stride, "padding": pads[pick(0, len(pads) - 1)], "dilation": dilation}


def room(pick: Pick, rng: np.random.Generator, channels: int, kernel: tuple[int, int], dilation: Any) -> Array:
    """An image on which the dilated kernel fits."""
    d = (dilation, dilation) if isinstance(dilation, int) else dilation
    size = [d[a] * (kernel[a] - 1) + 1 + pick(0, 4) for a in (0, 1)]
    return rng.standard_normal((pick(1, 2), channels, *size))


def four(padding: Any) -> list[int]:
    """Padding as `F.pad` wants it: left, right, top, bottom."""
    if isinstance(padding, int):
        return [padding] * 4
    if isinstance(padding[0], int):
        return [padding[1], padding[1], padding[0], padding[0]]
    return [*padding[1], *padding[0]]


def torch_conv(settings: dict[str, Any], groups: int | None = None, turn: bool = False) -> Callable[..., Tensors]:
    def run(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> Tensors:
        padded = F.pad(x, four(settings.get("padding", 0)))
        kernel = w.flip(2, 3) if turn else w
        g = settings.get("groups", 1) if groups is None else groups
        return {"y": F.conv2d(padded, kernel, b, settings.get("stride", 1), 0, settings.get("dilation", 1), g)}

    return run


def convolution(pick: Pick, rng: np.random.Generator, turn: bool = False, grouped: bool = True) -> Example:
    kernel = pick(1, 3), pick(1, 3)
    settings = placement(pick, kernel)
    groups = pick(1, 3) if grouped else 1
    c, o = groups * pick(1, 2), groups * pick(1, 2)
    x = room(pick, rng, c, kernel, settings["dilation"])
    if grouped:
        settings["groups"] = groups
    arrays = [x, rng.standard_normal((o, c // groups, *kernel)), optional(pick, rng.standard_normal(o))]
    return Example(arrays, settings, torch_conv(settings, turn=turn))


def depthwise(pick: Pick, rng: np.random.Generator) -> Example:
    kernel = pick(1, 3), pick(1, 3)
    settings = placement(pick, kernel)
    c, times = pick(1, 3), pick(1, 2)
    x = room(pick, rng, c, kernel, settings["dilation"])
    arrays = [x, rng.standard_normal((c * times, 1, *kernel)), optional(pick, rng.standard_normal(c * times))]
    return Example(arrays, settings, torch_conv(settings, groups=c))


def pointwise(pick: Pick, rng: np.random.Generator) -> Example:
    c, o = pick(1, 4), pick(1, 4)
    arrays = [image(pick, rng, c, 1, 4), rng.standard_normal((o, c, 1, 1)), optional(pick, rng.standard_normal(o))]
    return Example(arrays, {}, torch_conv({}))


def separable(pick: Pick, rng: np.random.Generator) -> Example:
    kernel = pick(1, 3), pick(1, 3)
    settings = placement(pick, kernel)
    c, times, o = pick(1, 3), pick(1, 2), pick(1, 3)
    x = room(pick, rng, c, kernel, settings["dilation"])
    v, w = rng.standard_normal((c * times, 1, *kernel)), rng.standard_normal((o, c * times, 1, 1))

    def run(x: torch.Tensor, v: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> Tensors:
        z = torch_conv(settings, groups=c)(x, v, None)["y"]
        return {"y": F.conv2d(z, w, b), "z": z}

    return Example([x, v, w, optional(pick, rng.standard_normal(o))], settings, run, ("z",))


def transposed(pick: Pick, rng: np.random.Generator) -> Example:
    kernel = pick(1, 3), pick(1, 3)
    stride, dilation, groups = (pick(1, 3), pick(1, 3)), (pick(1, 2), pick(1, 2)), pick(1, 2)
    padding = tuple(pick(0, min(1, dilation[a] * (kernel[a] - 1) // 2)) for a in (0, 1))
    extra = tuple(pick(0, max(stride[a], dilation[a]) - 1) for a in (0, 1))
    c, each = groups * pick(1, 2), pick(1, 2)
    x = rng.standard_normal((pick(1, 2), c, pick(1, 4), pick(1, 4)))
    arrays = [x, rng.standard_normal((c, each, *kernel)), optional(pick, rng.standard_normal(each * groups))]
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "output_padding": extra}

    def run(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> Tensors:
        return {"y": F.conv_transpose2d(x, w, b, stride, padding, extra, groups, dilation)}

    return Example(arrays, settings, run)


# --- pooling and shape --------------------------------------------------------------------------------------------


def window(pick: Pick) -> tuple[tuple[int, int], dict[str, Any]]:
    kernel = pick(1, 3), pick(1, 3)
    settings: dict[str, Any] = {
        "stride": [None, pick(1, 3), (pick(1, 3), pick(1, 3))][pick(0, 2)],
        "padding": (pick(0, kernel[0] // 2), pick(0, kernel[1] // 2)),
        "ceil": bool(pick(0, 1)),
    }
    return kernel, settings


def max_pool(pick: Pick, rng: np.random.Generator) -> Example:
    kernel, settings = window(pick)
    settings["dilation"] = (pick(1, 2), pick(1, 2))
    x = apart(rng, room(pick, rng, pick(1, 2), kernel, settings["dilation"]).shape)

    def run(x: torch.Tensor) -> Tensors:
        y = F.max_pool2d(x, kernel, settings["stride"], settings["padding"], settings["dilation"], settings["ceil"])
        return {"y": y}

    return Example([x], {"kernel": kernel, **settings}, run)


def average_pool(pick: Pick, rng: np.random.Generator) -> Example:
    kernel, settings = window(pick)
    settings["count_padding"] = bool(pick(0, 1))
    x = room(pick, rng, pick(1, 2), kernel, 1)

    def run(x: torch.Tensor) -> Tensors:
        counts = settings["count_padding"]
        return {"y": F.avg_pool2d(x, kernel, settings["stride"], settings["padding"], settings["ceil"], counts)}

    return Example([x], {"kernel": kernel, **settings}, run)


def soft_pool(pick: Pick, rng: np.random.Generator) -> Example:
    kernel, stride = (pick(1, 3), pick(1, 3)), (pick(1, 3), pick(1, 3))
    x = room(pick, rng, pick(1, 2), kernel, 1)

    def run(x: torch.Tensor) -> Tensors:
        view = x.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1]).flatten(4)
        return {"y": (view.softmax(-1) * view).sum(-1)}

    return Example([x], {"kernel": kernel, "stride": stride}, run)


def adaptive_average(pick: Pick, rng: np.random.Generator) -> Example:
    size = pick(1, 5), pick(1, 5)
    return Example([image(pick, rng)], {"size": size}, lambda x: {"y": F.adaptive_avg_pool2d(x, size)})


def global_average(pick: Pick, rng: np.random.Generator) -> Example:
    return Example([image(pick, rng)], {}, lambda x: {"y": F.adaptive_avg_pool2d(x, 1)})


def pyramid(pick: Pick, rng: np.random.Generator) -> Example:
    levels = [(1, 2, 4), (1,), (3, 2)][pick(0, 2)]
    x = apart(rng, image(pick, rng).shape)
    return Example(
        [x],
        {"levels": levels},
        lambda x: {"y": torch.cat([F.adaptive_max_pool2d(x, level).flatten(1) for level in levels], 1)},
    )


def flatten(pick: Pick, rng: np.random.Generator) -> Example:
    start = pick(0, 3)
    return Example([image(pick, rng, low=1, high=3)], {"start": start}, lambda x: {"y": x.flatten(start)})


def padding(pick: Pick, rng: np.random.Generator) -> Example:
    widths = [(pick(0, 2), pick(0, 2)) for _ in range(pick(1, 4))]
    value = [0.0, 1.5][pick(0, 1)]
    flat = [w for pair in reversed(widths) for w in pair]
    x = image(pick, rng, low=1, high=3)
    return Example([x], {"widths": tuple(widths), "value": value}, lambda x: {"y": F.pad(x, flat, value=value)})


def concatenate(pick: Pick, rng: np.random.Generator) -> Example:
    axis = pick(0, 2)
    shape = [pick(1, 3), pick(1, 3), pick(1, 3)]
    arrays: list[Array | None] = [
        rng.standard_normal([pick(1, 3) if a == axis else s for a, s in enumerate(shape)]) for _ in range(pick(1, 4))
    ]
    return Example(arrays, {"axis": axis}, lambda *xs: {"y": torch.cat(xs, axis)})


def mean(pick: Pick, rng: np.random.Generator) -> Example:
    axes = [None, (0,), (2, 3), (1, 2), (3,)][pick(0, 4)]
    average, keep = bool(pick(0, 1)), bool(pick(0, 1))
    chosen = (0, 1, 2, 3) if axes is None else axes

    def run(x: torch.Tensor) -> Tensors:
        return {"y": x.mean(chosen, keepdim=keep) if average else x.sum(chosen, keepdim=keep)}

    return Example([image(pick, rng, low=1, high=3)], {"axes": axes, "average": average, "keep": keep}, run)


def average_pool_3d(pick: Pick, rng: np.random.Generator) -> Example:
    kernel = pick(1, 3), pick(1, 3), pick(1, 3)
    stride = [None, pick(1, 3), (pick(1, 3), pick(1, 3), pick(1, 3))][pick(0, 2)]
    padding = tuple(pick(0, k // 2) for k in kernel)
    ceil, counts = bool(pick(0, 1)), bool(pick(0, 1))
    x = rng.standard_normal((pick(1, 2), pick(1, 2), *[k + pick(0, 3) for k in kernel]))

    def run(x: torch.Tensor) -> Tensors:
        return {"y": F.avg_pool3d(x, kernel, stride, padding, ceil, counts)}

    settings = {"kernel": kernel, "stride": stride, "padding": padding, "ceil": ceil, "count_padding": counts}
    return Example([x], settings, run)


def identity(pick: Pick, rng: np.random.Generator) -> Example:
    return Example([image(pick, rng, low=1, high=3)], {}, lambda x: {"y": x.clone()})


def reshape(pick: Pick, rng: np.random.Generator) -> Example:
    a, b, c = pick(1, 3), pick(1, 3), pick(1, 3)
    shape = [(c, b, a), (a * b, c), (a, 1, b * c), (a * b * c,)][pick(0, 3)]
    return Example([rng.standard_normal((a, b, c))], {"shape": shape}, lambda x: {"y": x.reshape(shape)})


def permute(pick: Pick, rng: np.random.Generator) -> Example:
    axes = tuple(int(axis) for axis in rng.permutation(4))
    return Example([image(pick, rng, low=1, high=3)], {"axes": axes}, lambda x: {"y": x.permute(axes)})


def slice_(pick: Pick, rng: np.random.Generator) -> Example:
    axis, step = pick(0, 2), pick(1, 3)
    shape = (pick(2, 4), pick(2, 4), pick(2, 4))
    start = pick(0, shape[axis] - 1)
    stop = pick(start + 1, shape[axis])
    where = tuple(slice(start, stop, step) if a == axis else slice(None) for a in range(3))
    settings = {"axis": axis, "start": start, "stop": stop, "step": step}
    return Example([rng.standard_normal(shape)], settings, lambda x: {"y": x[where]})


def select(pick: Pick, rng: np.random.Generator) -> Example:
    axis = pick(0, 2)
    shape = (pick(1, 3), pick(1, 3), pick(1, 3))
    at = pick(0, shape[axis] - 1)
    return Example([rng.standard_normal(shape)], {"axis": axis, "index": at}, lambda x: {"y": x.select(axis, at)})


def expand(pick: Pick, rng: np.random.Generator) -> Example:
    wide = (pick(1, 3), pick(1, 3), pick(1, 3))
    shape = tuple(1 if pick(0, 1) else size for size in wide)[pick(0, 2) :]
    return Example([rng.standard_normal(shape)], {"shape": wide}, lambda x: {"y": x.expand(wide)})


def take(pick: Pick, rng: np.random.Generator) -> Example:
    shape = (pick(1, 3), pick(1, 3), pick(1, 3))
    places = [None if pick(0, 3) == 0 else rng.integers(0, size, pick(1, 5)).tolist() for size in shape]

    def run(x: torch.Tensor) -> Tensors:
        for axis, taken in enumerate(places):
            x = x if taken is None else x.index_select(axis, torch.tensor(taken))
        return {"y": x.clone()}

    return Example([rng.standard_normal(shape)], {"places": places}, run)


def stack_(pick: Pick, rng: np.random.Generator) -> Example:
    shape, axis = (pick(1, 3), pick(1, 3)), pick(0, 2)
    arrays: list[Array | None] = [rng.standard_normal(shape) for _ in range(pick(1, 3))]
    return Example(arrays, {"axis": axis}, lambda *xs: {"y": torch.stack(xs, axis)})


def matmul(pick: Pick, rng: np.random.Generator) -> Example:
    lead = (pick(1, 2), pick(1, 2))
    fronts = [tuple(1 if pick(0, 2) == 0 else size for size in lead)[pick(0, 2) :] for _ in "ab"]
    i, k, j = pick(1, 3), pick(1, 4), pick(1, 3)
    arrays: list[Array | None] = [rng.standard_normal((*fronts[0], i, k)), rng.standard_normal((*fronts[1], k, j))]
    return Example(arrays, {}, lambda a, b: {"y": a @ b})


def largest(pick: Pick, rng: np.random.Generator) -> Example:
    axes = [None, (0,), (2, 3), (1, 2), (3,)][pick(0, 4)]
    shared, keep = bool(pick(0, 1)), bool(pick(0, 1))
    chosen = (0, 1, 2, 3) if axes is None else axes
    x = apart(rng, image(pick, rng, low=1, high=3).shape)
    settings = {"axes": axes, "shared": shared, "keep": keep}
    return Example([x], settings, lambda x: {"y": x.amax(chosen, keepdim=keep)})


def adaptive_max(pick: Pick, rng: np.random.Generator) -> Example:
    size = pick(1, 5), pick(1, 5)
    x = apart(rng, image(pick, rng).shape)
    return Example([x], {"size": size}, lambda x: {"y": F.adaptive_max_pool2d(x, size)})


# --- elementwise --------------------------------------------------------------------------------------------------


def unary(f: Callable[..., torch.Tensor], choices: tuple[dict[str, Any], ...] = ({},), smooth: bool = False) -> Case:
    """An activation: torch's function takes the same settings by the names given in `choices` under "torch"."""

    def case(pick: Pick, rng: np.random.Generator) -> Example:
        shape = [(), (pick(1, 5),), (2, pick(1, 4)), (2, 2, pick(1, 3), 2)][pick(0, 3)]
        x = rng.standard_normal(shape) * pick(1, 4) if smooth else apart(rng, shape, 0.05 * pick(1, 8))
        choice = dict(choices[pick(0, len(choices) - 1)])
        given = choice.pop("torch", choice)
        return Example([np.asarray(x)], choice, lambda x: {"y": f(x, **given)})

    return case


def binary(f: Callable[..., torch.Tensor], away: bool = False) -> Case:
    """Arithmetic on shapes that broadcast, in either direction."""

    def case(pick: Pick, rng: np.random.Generator) -> Example:
        full = (pick(1, 3), pick(1, 3), pick(1, 3))
        other = tuple(1 if pick(0, 2) == 0 else size for size in full)[pick(0, 3) :]
        a, b = rng.standard_normal(full), rng.standard_normal(other)
        if pick(0, 1):
            a, b = b, a
        b = np.where(b < 0, b - 0.5, b + 0.5) if away else b
        return Example([a, np.asarray(b)], {}, lambda a, b: {"y": f(a, b)})

    return case


def power(pick: Pick, rng: np.random.Generator) -> Example:
    exponent = [2.0, 3.0, 0.5, -0.75][pick(0, 3)]
    x = rng.uniform(0.5, 2.0, (pick(1, 3), pick(1, 4)))
    return Example([x], {"exponent": exponent}, lambda x: {"y": x.pow(exponent)})


def positive(f: Callable[..., torch.Tensor]) -> Case:
    """A function of numbers above 0."""

    def case(pick: Pick, rng: np.random.Generator) -> Example:
        return Example([rng.uniform(0.3, 4.0, (pick(1, 3), pick(1, 4)))], {}, lambda x: {"y": f(x)})

    return case


def choice(f: Callable[..., torch.Tensor]) -> Case:
    """One of two arrays that broadcast, no number of them near another."""

    def case(pick: Pick, rng: np.random.Generator) -> Example:
        full = (pick(1, 3), pick(1, 3), pick(1, 3))
        other = tuple(1 if pick(0, 2) == 0 else size for size in full)[pick(0, 3) :]
        both = apart(rng, (int(np.prod(full)) + int(np.prod(other)),))
        a, b = both[: int(np.prod(full))].reshape(full), both[int(np.prod(full)) :].reshape(other)
        return Example([b, a] if pick(0, 1) else [a, b], {}, lambda a, b: {"y": f(a, b)})

    return case


def where(pick: Pick, rng: np.random.Generator) -> Example:
    full = (pick(1, 3), pick(1, 3))
    condition = rng.random((1, full[1]) if pick(0, 1) else full) > 0.5
    a, b = rng.standard_normal(full), rng.standard_normal(full[1:])
    return Example([condition, a, b], {}, lambda c, a, b: {"y": torch.where(c, a, b)})


def prelu(pick: Pick, rng: np.random.Generator) -> Example:
    shape = [(pick(1, 4),), (pick(1, 3), pick(2, 3)), (2, pick(2, 3), pick(1, 2), 2)][pick(0, 2)]
    each = len(shape) > 1 and bool(pick(0, 1))
    x, a = apart(rng, shape), rng.uniform(-0.5, 0.9, shape[1] if each else 1)
    return Example([x, a], {}, lambda x, a: {"y": F.prelu(x, a)})


def euclidean_norm(pick: Pick, rng: np.random.Generator) -> Example:
    axes = [None, (0,), (1, 2), (3,)][pick(0, 3)]
    keep = bool(pick(0, 1))
    x = image(pick, rng, low=1, high=3)
    x = np.where(x < 0, x - 0.3, x + 0.3)  # a norm of one number has a kink at 0
    return Example([x], {"axes": axes, "keep": keep}, lambda x: {"y": torch.linalg.vector_norm(x, 2, axes, keep)})


def weight_norm(pick: Pick, rng: np.random.Generator) -> Example:
    axis = pick(0, 2)
    v = rng.standard_normal((pick(2, 3), pick(2, 3), pick(2, 3)))
    g = rng.uniform(0.5, 2.0, tuple(size if a == axis else 1 for a, size in enumerate(v.shape)))
    over = tuple(a for a in range(3) if a != axis)

    def run(v: torch.Tensor, g: torch.Tensor) -> Tensors:
        return {"y": g * v / v.norm(dim=over, keepdim=True)}

    return Example([v, g], {"axis": axis}, run)


def dropout(inverted: bool) -> Case:
    def case(pick: Pick, rng: np.random.Generator) -> Example:
        p, training, seed = [0.0, 0.2, 0.5, 0.9][pick(0, 3)], bool(pick(0, 2)), pick(0, 1000)
        x = rng.standard_normal((pick(1, 4), pick(1, 5)))

        def drop(x: torch.Tensor) -> torch.Tensor:
            # The engine draws the mask from the generator; the same seed and shape give the same mask.
            torch.manual_seed(seed)
            return F.dropout(x, p, training=True)

        mask = (drop(torch.ones(x.shape, dtype=torch.float64)) != 0).double().numpy()

        def run(x: torch.Tensor, _: torch.Tensor) -> Tensors:
            if inverted:
                return {"y": drop(x) if training else x * 1}
            return {"y": drop(x) * (1 - p) if training else x * (1 - p)}

        return Example([x, mask], {"p": p, "training": training}, run)

    return case


def clip_by_norm(pick: Pick, rng: np.random.Generator) -> Example:
    x = rng.standard_normal((pick(1, 3), pick(2, 4)))
    limit = [0.1, 1.0, 50.0][pick(0, 2)]

    def run(x: torch.Tensor) -> Tensors:
        return {"y": x * (limit / (x.norm() + 1e-6)).clamp(max=1.0)}

    return Example([x], {"limit": limit}, run)


# --- normalisation ------------------------------------------------------------------------------------------------


def affine(pick: Pick, rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array | None, Array | None]:
    both = pick(0, 2)
    gamma = rng.standard_normal(shape) if both else None
    return gamma, (rng.standard_normal(shape) if both == 2 else None)


def batch_norm(pick: Pick, rng: np.random.Generator) -> Example:
    c = pick(1, 3)
    # Sets of at least three: two numbers are normalised to ±1 whatever they are, and nothing is left to compare.
    shape = [(pick(3, 5), c), (pick(3, 4), c, pick(1, 3)), (pick(1, 2), c, pick(3, 4), pick(1, 3))][pick(0, 2)]
    x = rng.standard_normal(shape) * 2 + 1
    gamma, beta = affine(pick, rng, (c,))
    mean, variance = (rng.standard_normal(c), rng.uniform(0.5, 2, c)) if pick(0, 3) else (None, None)
    training, momentum, eps = bool(pick(0, 1)), [0.1, 0.3][pick(0, 1)], [1e-5, 1e-3][pick(0, 1)]

    def run(x: torch.Tensor, gamma: Any, beta: Any, mean: Any, variance: Any) -> Tensors:
        mean, variance = (None, None) if mean is None else (mean.detach().clone(), variance.detach().clone())
        y = F.batch_norm(x, mean, variance, gamma, beta, training or mean is None, momentum, eps)
        return {"y": y} if mean is None else {"y": y, "running_mean": mean, "running_variance": variance}

    attributes = {"training": training, "momentum": momentum, "eps": eps}
    return Example([x, gamma, beta, mean, variance], attributes, run, pulled=("y",))


def layer_norm(pick: Pick, rng: np.random.Generator) -> Example:
    axes = pick(1, 3)
    x = rng.standard_normal((pick(1, 3), pick(1, 3), pick(3, 5))) * 2 + 1
    shape = x.shape[x.ndim - axes :]
    gamma, beta = affine(pick, rng, shape)
    return Example([x, gamma, beta], {"axes": axes}, lambda x, g, b: {"y": F.layer_norm(x, shape, g, b)})


def group_norm(pick: Pick, rng: np.random.Generator) -> Example:
    groups, each = pick(1, 3), pick(1, 2)
    x = rng.standard_normal((pick(1, 2), groups * each, pick(3, 4), pick(1, 3))) * 2 + 1
    gamma, beta = affine(pick, rng, (groups * each,))
    return Example([x, gamma, beta], {"groups": groups}, lambda x, g, b: {"y": F.group_norm(x, groups, g, b)})


# --- softmax and losses -------------------------------------------------------------------------------------------


def softmax(f: Callable[..., torch.Tensor]) -> Case:
    def case(pick: Pick, rng: np.random.Generator) -> Example:
        axis = pick(-1, 2)
        x = rng.standard_normal((pick(1, 3), pick(1, 4), pick(1, 4))) * pick(1, 3)
        return Example([x], {"axis": axis}, lambda x: {"y": f(x, axis)})

    return case


def mean_squared_error(pick: Pick, rng: np.random.Generator) -> Example:
    shape, reduction = (pick(1, 3), pick(1, 4)), ["mean", "sum"][pick(0, 1)]
    arrays: list[Array | None] = [rng.standard_normal(shape), rng.standard_normal(shape)]
    return Example(arrays, {"reduction": reduction}, lambda x, t: {"y": F.mse_loss(x, t, reduction=reduction)})


def cross_entropy(pick: Pick, rng: np.random.Generator) -> Example:
    n, c = pick(1, 4), pick(2, 5)
    smoothing, reduction = [0.0, 0.1, 0.5][pick(0, 2)], ["mean", "sum"][pick(0, 1)]
    labels, weights = rng.integers(0, c, n), optional(pick, rng.uniform(0.5, 2, c))

    def run(x: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> Tensors:
        return {"y": F.cross_entropy(x, labels, weights, label_smoothing=smoothing, reduction=reduction)}

    return Example(
        [rng.standard_normal((n, c)) * 2, labels, weights], {"smoothing": smoothing, "reduction": reduction}, run
    )


def probability_entropy(pick: Pick, rng: np.random.Generator) -> Example:
    n, c = pick(1, 4), pick(2, 5)
    p = rng.dirichlet(np.ones(c) * 3, n) + 0.05
    return Example([p, rng.integers(0, c, n)], {}, lambda p, labels: {"y": F.nll_loss(p.log(), labels)})


def penalty(f: Callable[[torch.Tensor], torch.Tensor]) -> Case:
    def case(pick: Pick, rng: np.random.Generator) -> Example:
        strength = [1.0, 0.01][pick(0, 1)]
        w = apart(rng, (pick(1, 3), pick(1, 4)))
        return Example([w], {"strength": strength}, lambda w: {"y": strength * f(w)})

    return case


# --- recurrent ----------------------------------------------------------------------------------------------------


def weights(pick: Pick, rng: np.random.Generator, gates: int, d: int, h: int) -> list[Array | None]:
    both = pick(0, 1)
    return [
        rng.standard_normal((gates * h, d)),
        rng.standard_normal((gates * h, h)) * 0.7,
        rng.standard_normal(gates * h) if both else None,
        rng.standard_normal(gates * h) if both else None,
    ]


def some(given: Tensors, pick: Pick) -> tuple[str, ...]:
    """All outputs, or (a gradient may come from one alone) the first or the last."""
    names = tuple(given)
    return [names, names[:1], names[-1:]][pick(0, 2)]


def rnn_step(x: Any, h: Any, w_xh: Any, w_hh: Any, b: Any, b_hh: Any) -> Tensors:
    return {"h": torch.rnn_tanh_cell(x, h, w_xh, w_hh, b, b_hh)}


def lstm_step(x: Any, h: Any, c: Any, w_xh: Any, w_hh: Any, b: Any, b_hh: Any) -> Tensors:
    """The cell written out, so that its gates have gradients; equal to torch's own cell."""
    a = F.linear(x, w_xh, b) + F.linear(h, w_hh, b_hh)
    i, f, g, o = (part.contiguous() for part in a.chunk(4, 1))
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    c_next = f * c + i * g
    h_next = o * c_next.tanh()
    own_h, own_c = torch.lstm_cell(x, (h, c), w_xh, w_hh, b, b_hh)
    torch.testing.assert_close(h_next, own_h, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(c_next, own_c, rtol=1e-12, atol=1e-12)
    return {"h": h_next, "c": c_next, "i": i, "f": f, "g": g, "o": o}


def rnn_cell(pick: Pick, rng: np.random.Generator) -> Example:
    n, d, h, o = pick(1, 3), pick(1, 4), pick(1, 3), pick(1, 3)
    out = pick(0, 2)
    w_hy = rng.standard_normal((o, h)) if out else None
    arrays = [rng.standard_normal((n, d)), rng.standard_normal((n, h)), *weights(pick, rng, 1, d, h), w_hy]
    arrays.append(rng.standard_normal(o) if out == 2 else None)

    def run(*t: Any) -> Tensors:
        state = rnn_step(*t[:6])["h"]
        return {"h": state} if t[6] is None else {"h": state, "y": F.linear(state, t[6], t[7])}

    return Example(arrays, {}, run, ("h",), (("h", "y") if out else ("h",)))


def lstm_cell(pick: Pick, rng: np.random.Generator) -> Example:
    n, d, h = pick(1, 3), pick(1, 4), pick(1, 3)
    arrays = [rng.standard_normal((n, size)) for size in (d, h, h)]
    inside = ("i", "f", "g", "o", "c")
    return Example([*arrays, *weights(pick, rng, 4, d, h)], {}, lstm_step, inside, (("h",), ("h", "c"))[pick(0, 1)])


def stack(kind: str) -> Case:
    """Layers of cells written out step by step; the outputs are held against torch's own `rnn_tanh` and `lstm`."""
    gates, states = (1, ("h",)) if kind == "rnn" else (4, ("h", "c"))
    values = ("h",) if kind == "rnn" else ("i", "f", "g", "o", "c", "h")

    def case(pick: Pick, rng: np.random.Generator) -> Example:
        n, length, d, h, layers = pick(1, 2), pick(1, 3), pick(1, 3), pick(1, 3), pick(1, 2)
        biased = pick(0, 1)
        started = bool(pick(0, 1))
        arrays: list[Array | None] = [rng.standard_normal((n, length, d))]
        arrays += [rng.standard_normal((layers, n, h)) if started else None for _ in states]
        for layer in range(layers):
            arrays += weights(lambda *_: biased, rng, gates, d if layer == 0 else h, h)

        def run(x: Any, *rest: Any) -> Tensors:
            start = [torch.zeros(layers, n, h, dtype=x.dtype) if s is None else s for s in rest[: len(states)]]
            flat = rest[len(states) :]
            below = list(x.unbind(1))
            out: Tensors = {}
            last: list[list[torch.Tensor]] = []
            for layer in range(layers):
                state = [s[layer] for s in start]
                steps = []
                for x_t in below:
                    step = (rnn_step if kind == "rnn" else lstm_step)(x_t, *state, *flat[4 * layer : 4 * layer + 4])
                    state = [step[s] for s in states]
                    steps.append(step)
                out |= {f"{layer}.{name}@{t}": step[name] for t, step in enumerate(steps) for name in values}
                below = [step["h"] for step in steps]
                last.append(state)
            out["y"] = torch.stack(below, 1)
            out |= {f"{s}_n": torch.stack([state[k] for state in last]) for k, s in enumerate(states)}
            own = torch.lstm if kind == "lstm" else torch.rnn_tanh
            first: Any = tuple(start) if kind == "lstm" else start[0]
            given = [w for w in flat if w is not None]
            results = own(x, first, given, bool(biased), layers, 0.0, False, False, True)
            for name, result in zip(("y", *(f"{s}_n" for s in states)), results, strict=True):
                torch.testing.assert_close(out[name], result, rtol=1e-12, atol=1e-12)
            return out

        outputs = ("y", *(f"{s}_n" for s in states))
        pulled = [outputs, ("y",), outputs[-1:]][pick(0, 2)]
        inside = tuple(f"{layer}.{name}" for layer in range(layers) for name in values)
        return Example(arrays, {}, run, inside, pulled)

    return case


CASES: dict[str, Case] = {
    "linear": linear,
    "convolution": convolution,
    "true_convolution": lambda pick, rng: convolution(pick, rng, turn=True),
    "depthwise_convolution": depthwise,
    "pointwise_convolution": pointwise,
    "separable_convolution": separable,
    "unrolled_convolution": lambda pick, rng: convolution(pick, rng, grouped=False),
    "transposed_convolution": transposed,
    "max_pool": max_pool,
    "average_pool": average_pool,
    "soft_pool": soft_pool,
    "average_pool_3d": average_pool_3d,
    "adaptive_average_pool": adaptive_average,
    "global_average_pool": global_average,
    "spatial_pyramid_pool": pyramid,
    "flatten": flatten,
    "padding": padding,
    "concatenate": concatenate,
    "mean": mean,
    "identity": identity,
    "reshape": reshape,
    "permute": permute,
    "slice": slice_,
    "select": select,
    "expand": expand,
    "take": take,
    "stack": stack_,
    "matmul": matmul,
    "largest": largest,
    "adaptive_max_pool": adaptive_max,
    "add": binary(torch.add),
    "subtract": binary(torch.sub),
    "multiply": binary(torch.mul),
    "divide": binary(torch.div, away=True),
    "power": power,
    "exp": unary(torch.exp, smooth=True),
    "log": positive(torch.log),
    "log1p": positive(torch.log1p),
    "expm1": unary(torch.expm1, smooth=True),
    "sine": unary(torch.sin, smooth=True),
    "cosine": unary(torch.cos, smooth=True),
    "absolute": unary(torch.abs),
    "negative": unary(torch.neg),
    "erf": unary(torch.erf, smooth=True),
    "clamp": unary(
        torch.clamp,
        (
            {"low": -0.5, "high": 1.5, "torch": {"min": -0.5, "max": 1.5}},
            {"high": 0.5, "torch": {"max": 0.5}},
            {"low": 0.0, "torch": {"min": 0.0}},
        ),
    ),
    "maximum": choice(torch.maximum),
    "minimum": choice(torch.minimum),
    "where": where,
    "softsign": unary(F.softsign, smooth=True),
    "log_sigmoid": unary(F.logsigmoid, smooth=True),
    "mish": unary(F.mish, smooth=True),
    "selu": unary(F.selu),
    "prelu": prelu,
    "euclidean_norm": euclidean_norm,
    "weight_norm": weight_norm,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "dropout": dropout(True),
    "dropout_scaled_at_test": dropout(False),
    "sigmoid": unary(torch.sigmoid, smooth=True),
    "tanh": unary(torch.tanh, smooth=True),
    "relu": unary(F.relu),
    "leaky_relu": unary(F.leaky_relu, ({}, {"slope": 0.2, "torch": {"negative_slope": 0.2}})),
    "elu": unary(F.elu, ({}, {"alpha": 0.7})),
    "gelu": unary(F.gelu, ({}, {"approximate": "tanh"}), smooth=True),
    "silu": unary(F.silu, smooth=True),
    "hard_tanh": unary(F.hardtanh, ({}, {"low": -0.5, "high": 2.0, "torch": {"min_val": -0.5, "max_val": 2.0}})),
    "relu6": unary(F.relu6),
    # torch's own hardsigmoid takes 1/6 in float32 on the way back, even in float64: right to 3e-8 only.
    "hard_sigmoid": unary(lambda x: F.relu6(x + 3) / 6),
    "hard_swish": unary(F.hardswish),
    "softplus": unary(
        F.softplus, ({"torch": {"threshold": 1000}}, {"beta": 2.0, "torch": {"beta": 2.0, "threshold": 1000}}), True
    ),
    "softmax": softmax(torch.softmax),
    "log_softmax": softmax(torch.log_softmax),
    "mean_squared_error": mean_squared_error,
    "cross_entropy": cross_entropy,
    "cross_entropy_of_probabilities": probability_entropy,
    "l1_penalty": penalty(lambda w: w.abs().sum()),
    "l2_penalty": penalty(lambda w: (w**2).sum()),
    "rnn_cell": rnn_cell,
    "lstm_cell": lstm_cell,
    "rnn": stack("rnn"),
    "lstm": stack("lstm"),
    "clip_by_value": unary(lambda x, limit=1.0: x.clamp(-limit, limit), ({}, {"limit": 0.5})),
    "clip_by_norm": clip_by_norm,
}


def drawn(name: str, rng: np.random.Generator) -> Example:
    """An example of an operation, everything chosen by one generator."""
    return CASES[name](lambda low, high: int(rng.integers(low, high + 1)), rng)

"""The few moves on arrays that several pages share: sums over named axes, windows and back, broadcasting and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from pellucid.textbook.terms import Array

Pair = tuple[int, int]


def contract(axes: str, a: Array, b: Array) -> Array:
    """`np.einsum` for two arrays, by one matrix product a batch entry: the same sum, at the speed of BLAS.

    >>> contract("ij,jk->ik", np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])).tolist()
    [[11.0]]
    """
    inputs, out = axes.split("->")
    of_a, of_b = inputs.split(",")
    both = [letter for letter in of_a if letter in of_b]
    batch = [letter for letter in both if letter in out]
    summed = [letter for letter in both if letter not in out]
    free_a = [letter for letter in of_a if letter not in both]
    free_b = [letter for letter in of_b if letter not in both]
    size = dict(zip(of_a, a.shape, strict=True)) | dict(zip(of_b, b.shape, strict=True))

    def block(letters: list[str]) -> int:
        return int(np.prod([size[letter] for letter in letters], dtype=np.int64))

    a3 = a.transpose([of_a.index(letter) for letter in batch + free_a + summed])
    b3 = b.transpose([of_b.index(letter) for letter in batch + summed + free_b])
    a3 = a3.reshape(block(batch), block(free_a), block(summed))
    b3 = b3.reshape(block(batch), block(summed), block(free_b))
    letters = batch + free_a + free_b
    y = np.matmul(a3, b3).reshape([size[letter] for letter in letters])
    return np.asarray(y.transpose([letters.index(letter) for letter in out]))


def pair(value: Any, name: str, smallest: int) -> Pair:
    """A setting for height and width, from one number or two."""
    both = (value, value) if isinstance(value, int | np.integer) else tuple(value)
    if len(both) != 2 or any(int(v) < smallest for v in both):
        raise ValueError(f"{name} is {value!r}, but must be one or two whole numbers ≥ {smallest} (height, width)")
    return int(both[0]), int(both[1])


def sides(padding: Any, smallest: int = 0) -> tuple[Pair, Pair]:
    """Padding as ((top, bottom), (left, right)), from one number, (height, width), or those two pairs."""
    if not isinstance(padding, int | np.integer) and not isinstance(padding[0], int | np.integer):
        return pair(padding[0], "padding", smallest), pair(padding[1], "padding", smallest)
    high, wide = pair(padding, "padding", smallest)
    return (high, high), (wide, wide)


def out_size(size: int, kernel: int, stride: int, pads: Pair, dilation: int, axis: str) -> int:
    """⌊(W − D·(K − 1) − 1 + P_left + P_right)/S⌋ + 1, or a ValueError with the numbers in it."""
    reach = dilation * (kernel - 1) + 1
    room = size + sum(pads) - reach
    if room < 0:
        raise ValueError(
            f"a kernel of {kernel} (dilation {dilation}, so {reach} wide) does not fit the padded {axis} "
            f"{size} + {pads[0]} + {pads[1]}: ⌊({size} − {reach} + {sum(pads)})/{stride}⌋ + 1 < 1"
        )
    return room // stride + 1


def windows(x: Array, kernel: Pair, stride: Pair, dilation: Pair) -> Array:
    """Every window of the last two axes, as a view: (…, H, W) -> (…, I, J, K, L).

    Element [i, j, k, l] is x[i·S + k·D, j·S + l·D].
    """
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(-2, -1))
    return view[..., :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def fold(d_windows: Array, shape: Pair, stride: Pair, dilation: Pair) -> Array:
    """The way back of `windows`: every element adds up what its windows received, (…, I, J, K, L) -> (…, H, W).

    One addition of a whole plane for each of the K·L places in the window.
    """
    *lead, high, wide, rows, columns = d_windows.shape
    dx = np.zeros((*lead, *shape), dtype=d_windows.dtype)
    for k in range(rows):
        for m in range(columns):
            top, left = k * dilation[0], m * dilation[1]
            dx[
                ...,
                top : top + stride[0] * (high - 1) + 1 : stride[0],
                left : left + stride[1] * (wide - 1) + 1 : stride[1],
            ] += d_windows[..., k, m]
    return dx


def pad_planes(x: Array, pads: tuple[Pair, Pair], value: float = 0.0) -> Array:
    """A border of `value` around the last two axes."""
    if pads == ((0, 0), (0, 0)):
        return x
    return np.pad(x, [(0, 0)] * (x.ndim - 2) + list(pads), constant_values=value)


def crop_planes(x: Array, pads: tuple[Pair, Pair]) -> Array:
    """The way back of `pad_planes`: the border's gradient goes nowhere."""
    (top, bottom), (left, right) = pads
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def taps(i: int, kernel: int, stride: int, before: int, dilation: int, size: int) -> tuple[Array, Array]:
    """Which places k of the window at output i lie on the input, and where: h = i·S − P + k·D, 0 ≤ h < H."""
    k = np.arange(kernel)
    h = i * stride - before + k * dilation
    inside = (h >= 0) & (h < size)
    return k[inside], h[inside]


def covers(h: int, kernel: int, stride: int, before: int, dilation: int, out: int) -> tuple[Array, Array]:
    """Which outputs i see input position h, and at which place k: i = (h + P − k·D)/S where whole, 0 ≤ i < I."""
    k = np.arange(kernel)
    i, rest = np.divmod(h + before - k * dilation, stride)
    inside = (rest == 0) & (i >= 0) & (i < out)
    return k[inside], i[inside]


def mesh(*axes: Array) -> tuple[Array, ...]:
    """The given index vectors as flat vectors of every combination, last one fastest."""
    return tuple(m.ravel() for m in np.meshgrid(*axes, indexing="ij"))


def unbroadcast(d: Array, shape: tuple[int, ...]) -> Array:
    """The way back of broadcasting: a number that was used many times adds up all its gradients.

    >>> unbroadcast(np.ones((2, 3)), (3,)).tolist()
    [2.0, 2.0, 2.0]
    """
    d = d.sum(axis=tuple(range(d.ndim - len(shape))))
    return np.asarray(d.sum(axis=tuple(a for a, size in enumerate(shape) if size == 1), keepdims=True).reshape(shape))

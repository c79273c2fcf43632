r"""Sizes: how large an output is, and which part of the image a number has seen.

Along one axis a layer of kernel K, stride S, padding P (before) and dilation D lets output i read the input positions
from i·S − P to i·S − P + D·(K − 1), so

- **output size** ⌊(W − D(K − 1) − 1 + P_before + P_after)/S⌋ + 1 (⌈ ⌉ where a last window may run over the edge),
- **backwards**, the outputs i₀ … i₁ have read i₀·S − P … i₁·S − P + D(K − 1),
- **forwards**, the inputs h₀ … h₁ have reached ⌈(h₀ + P − D(K − 1))/S⌉ … ⌊(h₁ + P)/S⌋,
- and layer after layer the field grows as r ← r + D(K − 1)·j, the jump j (input pixels between neighbours) as j ← j·S.

Through branches a number has seen the hull of what its branches have seen.

>>> output_size(32, 5), output_size(224, 7, stride=2, padding=3), same_padding(5, 2)
(28, 112, (0, 1))
>>> layers = [Layer("conv1", ("image",), Window(5)), Layer("pool1", ("conv1",), Window(2, 2))]
>>> field(layers, "pool1"), backwards(layers, "pool1", (3, 3))
(Field(size=6, jump=2, start=0), (6, 11))

Source: Araujo, Norris & Sim 2019, "Computing receptive fields of convolutional neural networks".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

Span = tuple[int, int]
#: The name of the network's input in `Layer.inputs`.
IMAGE = "image"


def output_size(
    size: int, kernel: int, stride: int = 1, padding: int | Span = 0, dilation: int = 1, ceil: bool = False
) -> int:
    """The number of outputs along one axis; padding is one number or (before, after)."""
    before, after = (padding, padding) if isinstance(padding, int) else padding
    reach = dilation * (kernel - 1) + 1
    room = size + before + after - reach
    if min(size, kernel, stride, dilation) < 1 or min(before, after) < 0 or room < 0:
        raise ValueError(
            f"size {size}, kernel {kernel}, stride {stride}, padding {(before, after)}, dilation {dilation} give "
            f"⌊({size} − {reach} + {before + after})/{stride}⌋ + 1 < 1, or are below their least"
        )
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    # The last window must still begin on the image or the padding before it.
    return count - ((count - 1) * stride >= size + before)


def transposed_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, extra: int = 0
) -> int:
    """(W − 1)·S − 2P + D(K − 1) + 1 + extra: the size whose convolution has `size` outputs (extra < S says which)."""
    result = (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1 + extra
    if min(size, kernel, stride, dilation) < 1 or result < 1:
        raise ValueError(
            f"({size} − 1)·{stride} − 2·{padding} + {dilation}·({kernel} − 1) + 1 + {extra} = {result} < 1"
        )
    return result


def same_padding(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> Span:
    """Padding (before, after) that gives ⌈W/S⌉ outputs, the odd pixel after."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


@dataclass(frozen=True)
class Window:
    """What a layer reads along one axis; the default reads each position by itself (an activation)."""

    kernel: int = 1
    stride: int = 1
    before: int = 0
    dilation: int = 1

    @property
    def reach(self) -> int:
        """From the first to the last position read."""
        return self.dilation * (self.kernel - 1)


@dataclass(frozen=True)
class Layer:
    """A node of a network: its name, what it reads from (several for an addition or concatenation), and how."""

    name: str
    inputs: tuple[str, ...]
    window: Window = Window()


class Field(NamedTuple):
    """The receptive field of output 0: pixels wide, pixels between neighbours' fields, and where it begins."""

    size: int
    jump: int
    start: int


def field(layers: list[Layer], name: str) -> Field:
    """The receptive field of a layer, from the image forwards: r and j grow layer by layer.

    Branches that meet must have the same jump; the field is the hull of theirs.
    """
    fields = {IMAGE: Field(1, 1, 0)}
    for layer in _checked(layers, name):
        meets = [fields[source] for source in layer.inputs]
        if len({f.jump for f in meets}) > 1:
            jumps = {source: fields[source].jump for source in layer.inputs}
            raise ValueError(
                f"the branches that meet in {layer.name!r} have jumps {jumps}: their strides must multiply alike"
            )
        jump = meets[0].jump
        start = min(f.start for f in meets)
        end = max(f.start + f.size for f in meets)
        fields[layer.name] = Field(
            end - start + layer.window.reach * jump, jump * layer.window.stride, start - layer.window.before * jump
        )
    return fields[name]


def backwards(layers: list[Layer], name: str, span: Span, size: int | None = None) -> Span:
    """Which positions of the image the outputs (first, last) of a layer have read; cut to 0 … size − 1 if given."""
    reads: dict[str, Span] = {name: span}
    for layer in reversed(_checked(layers, name)):
        if layer.name not in reads:
            continue
        first, last = reads[layer.name]
        w = layer.window
        seen = (first * w.stride - w.before, last * w.stride - w.before + w.reach)
        for source in layer.inputs:
            reads[source] = _hull(reads.get(source, seen), seen)
    first, last = reads[IMAGE]
    return (first, last) if size is None else (max(first, 0), min(last, size - 1))


def forwards(layers: list[Layer], name: str, span: Span) -> Span:
    """Which outputs of a layer the positions (first, last) of the image have reached, before cutting to size."""
    reaches: dict[str, Span] = {IMAGE: span}
    for layer in _checked(layers, name):
        for source in layer.inputs:
            if source in reaches:
                first, last = reaches[source]
                w = layer.window
                touched = (-(-(first + w.before - w.reach) // w.stride), (last + w.before) // w.stride)
                reaches[layer.name] = _hull(reaches.get(layer.name, touched), touched)
    return reaches[name]


def _hull(a: Span, b: Span) -> Span:
    return min(a[0], b[0]), max(a[1], b[1])


def _checked(layers: list[Layer], name: str) -> list[Layer]:
    """The layers up to `name`, each after what it reads from."""
    known = {IMAGE}
    for number, layer in enumerate(layers):
        missing = [source for source in layer.inputs if source not in known]
        if missing or not layer.inputs:
            raise ValueError(
                f"layer {layer.name!r} reads from {missing or 'nothing'}, but before it there are {sorted(known)}"
            )
        known.add(layer.name)
        if layer.name == name:
            return layers[: number + 1]
    raise ValueError(f"there is no layer {name!r} among {[layer.name for layer in layers]}")

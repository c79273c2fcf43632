"""What a network as written becomes for images of one size: its layers in a row, named, each with its shapes.

Names count the layers of a kind from 1, in order: conv1, conv2, pool1, fc1, dropout1. What belongs to a layer carries
its name: conv1_norm, conv1_relu, fc1_tanh. The flattening before the first FC is `flatten`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field

from pellucid.errors import UsageError
from pellucid.nets.grammar import complain
from pellucid.nets.layer import Layer, TooSmallError
from pellucid.nets.notation import Group, Item, Net
from pellucid.nets.sizes import Shape, ShapeError, by
from pellucid.nets.specs import Flatten, FullyConnected

#: The largest side that is tried when looking for images that would fit.
LARGEST_SIDE = 1024


@dataclass(frozen=True, slots=True)
class Placed:
    """One layer in its place: its name, the shapes before and after it, and where in the text it was written."""

    name: str
    layer: Layer
    before: Shape
    after: Shape
    span: tuple[int, int]
    repeated: bool


def whole_image(image: object) -> tuple[int, int, int]:
    """`image` as (C, H, W). Raises UsageError where it is not three whole numbers above 0."""
    sizes = tuple(image) if isinstance(image, (tuple, list)) else ()
    if len(sizes) != 3 or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in sizes):
        raise UsageError(f"image={image!r}: expected (channels, height, width), whole numbers above 0, say (3, 32, 32)")
    return sizes[0], sizes[1], sizes[2]


def whole_classes(classes: object) -> int:
    """`classes` as a whole number above 0. Raises UsageError where it is not."""
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 1:
        raise UsageError(f"classes={classes!r}: expected a whole number above 0, the number of classes of the data")
    return classes


def plan(net: Net, image: Shape | None = None, classes: int | None = None) -> tuple[Placed, ...]:
    """The layers of `net` for an image (C, H, W), in order.

    The image may be left out where INPUT names it. With `classes` given, the network must end in that many numbers.
    Raises ShapeError where a layer does not fit what reaches it, UsageError where image, INPUT or classes disagree.
    """
    shape = _image(net, image)
    classes = None if classes is None else whole_classes(classes)
    try:
        placed = _walk(net, shape, classes)
    except TooSmallError as error:
        side = _smallest_side(net, shape[0], classes)
        if side is None:
            raise
        place = f"INPUT({shape[0]},{side},{side})" if net.image else f"--size {side}"
        sentence, _, lines = str(error).partition("\n")
        raise ShapeError(f"{sentence}; or use images of at least {side}×{side} ({place})\n{lines}") from error
    if not placed:
        raise ShapeError(
            f"images of {by(shape)} are too small for every layer, all of them optional: use larger images"
        )
    if classes is not None:
        placed = _ends_in(net, placed, classes)
    return placed


def _image(net: Net, image: Shape | None) -> Shape:
    if image is None:
        if net.image is None:
            raise UsageError(
                "the network does not say what images it takes: write INPUT(3,32,32) or give image=(3, 32, 32)"
            )
        return net.image
    given = whole_image(image)
    if net.image is not None and net.image != given:
        written, wanted = (f"INPUT({','.join(map(str, sizes))})" for sizes in (net.image, given))
        sentence = (
            f"{written} and images of {by(given)} contradict each other: write {wanted}, "
            "or INPUT alone to take images as they come"
        )
        raise ShapeError(complain(net.text, *net.input_span, sentence))
    return given


@dataclass
class _Walk:
    """The layers placed so far, still without names, and the shape that the last of them gives."""

    net: Net
    shape: Shape
    classes: int | None
    placed: list[Placed] = field(default_factory=list)
    repeated: bool = False

    def group(self, group: Group) -> None:
        outer, self.repeated = self.repeated, self.repeated or group.times > 1
        for _ in range(group.times):
            shape, length = self.shape, len(self.placed)
            try:
                for node in group.nodes:
                    self.item(node) if isinstance(node, Item) else self.group(node)
            except TooSmallError:
                if not group.optional:
                    raise
                self.shape = shape
                del self.placed[length:]
        self.repeated = outer

    def item(self, item: Item) -> None:
        layer = item.layer
        if isinstance(layer, FullyConnected):
            if len(self.shape) == 3:
                self.put(Flatten(), item)
            if layer.units == "classes":
                layer = dataclasses.replace(layer, units=self.known_classes(item))
        self.put(layer, item)

    def known_classes(self, item: Item) -> int:
        if self.classes is None:
            sentence = "FC(classes) stands for the number of classes, which is not known here: give classes=10"
            raise UsageError(complain(self.net.text, item.start, item.end, f"{sentence} or write FC(10)"))
        return self.classes

    def put(self, layer: Layer, item: Item) -> None:
        try:
            after = layer.after(self.shape)
        except ShapeError as error:
            number = 1 + sum(placed.layer.STEM == layer.STEM for placed in self.placed)
            sentence = f"{_name(layer, number)}: {error}"
            raise type(error)(complain(self.net.text, item.start, item.end, sentence)) from None
        self.placed.append(Placed("", layer, self.shape, after, (item.start, item.end), self.repeated))
        self.shape = after


def _name(layer: Layer, number: int) -> str:
    return layer.STEM if isinstance(layer, Flatten) else f"{layer.STEM}{number}"


def _walk(net: Net, shape: Shape, classes: int | None) -> tuple[Placed, ...]:
    walk = _Walk(net, shape, classes)
    walk.group(net.layers)
    last_fc = max((n for n, placed in enumerate(walk.placed) if isinstance(placed.layer, FullyConnected)), default=-1)
    counts: Counter[str] = Counter()
    layers = []
    for number, placed in enumerate(walk.placed):
        layer = placed.layer
        if isinstance(layer, FullyConnected) and not layer.activation:
            layer = dataclasses.replace(layer, activation="none" if number == last_fc else "relu")
        counts[layer.STEM] += 1
        layers.append(dataclasses.replace(placed, layer=layer, name=_name(layer, counts[layer.STEM])))
    return tuple(layers)


def _smallest_side(net: Net, channels: int, classes: int | None) -> int | None:
    """The smallest square image that fits, by halving; None where none up to `LARGEST_SIDE` does."""

    def fits(side: int) -> bool:
        try:
            _walk(net, (channels, side, side), classes)
        except TooSmallError:
            return False
        return True

    if not fits(LARGEST_SIDE):
        return None
    low, high = 0, LARGEST_SIDE
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _ends_in(net: Net, placed: tuple[Placed, ...], classes: int) -> tuple[Placed, ...]:
    """`placed`, ending in `classes` numbers; a last map of 1×1 is flattened.

    Raises ShapeError, with the corrected line, where it ends otherwise.
    """
    last = placed[-1]
    if len(last.after) == 3:
        if last.after == (classes, 1, 1):
            flat = Flatten()
            return (*placed, Placed("flatten", flat, last.after, flat.after(last.after), last.span, last.repeated))
        more = f" -> FC({classes})"
        raise ShapeError(
            f"the network ends in a map of {by(last.after)}, not in {classes} classes: write {_line(net, more)}"
        )
    if last.after != (classes,):
        name, corrected = last.name, _line(net, f" -> FC({classes})")
        for item in placed:
            if isinstance(item.layer, FullyConnected):
                name = item.name
                if not item.repeated:
                    activation = "" if item.layer.activation == "none" else item.layer.activation
                    written = dataclasses.replace(item.layer, units=classes, activation=activation)
                    corrected = _line(net, written.text, *item.span)
        sentence = f"{name} gives {last.after[0]} numbers, but the data has {classes} classes: write {corrected}"
        raise ShapeError(complain(net.text, *last.span, sentence))
    return placed


def _line(net: Net, written: str, start: int | None = None, end: int | None = None) -> str:
    """The network on one line, with `written` in place of its characters from `start` to `end`, or at its end."""
    start = len(net.text) if start is None else start
    return "'" + " ".join((net.text[:start] + written + net.text[end or start :]).split()) + "'"

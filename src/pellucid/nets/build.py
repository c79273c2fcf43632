"""Networks by name or by notation, as torch modules whose parts can be addressed by name."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import nn

from pellucid.errors import UsageError, did_you_mean
from pellucid.nets import layers
from pellucid.nets.notation import read
from pellucid.nets.plan import plan, whole_classes, whole_image
from pellucid.nets.quick import quick
from pellucid.nets.sizes import Shape
from pellucid.recipe import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pellucid.nets.layer import Part
    from pellucid.nets.plan import Placed

#: The names that `build` knows.
NAMES: tuple[str, ...] = NETWORKS

#: LeNet-5 with tanh, plain average pooling, a softmax output in place of the radial basis functions, and every map of
#: the second convolution seeing all six of the first (LeCun et al., "Gradient-based learning applied to document
#: recognition", 1998).
LENET5 = (
    "INPUT -> CONV(6, kernel=5, padding=valid, activation=tanh) -> POOL(avg)"
    " -> CONV(16, kernel=5, padding=valid, activation=tanh) -> POOL(avg)"
    " -> CONV(120, kernel=5, padding=valid, activation=tanh) -> FC(84, activation=tanh) -> FC(classes)"
)

#: The convolutional network of the Keras CIFAR-10 example.
CIFAR_CNN = (
    "INPUT -> CONV(32) -> CONV(32, padding=valid) -> POOL -> DROPOUT(0.25)"
    " -> CONV(64) -> CONV(64, padding=valid) -> POOL -> DROPOUT(0.25)"
    " -> FC(512) -> DROPOUT(0.5) -> FC(classes)"
)

CLASSIC = {"lenet5": LENET5, "cifar-cnn": CIFAR_CNN}

#: Height and width of the images that a named network was designed for.
OWN_SIDES = {"lenet5": (32, 32)}

#: Above this many parameters (8 GB in float32) a notation is taken for a slip of the pen.
MOST_PARAMETERS = 2**31


class Network(nn.Sequential):
    """Modules in a row under their names, and what they were built from (unknown of a slice, `network[:3]`)."""

    def __init__(
        self,
        modules: OrderedDict[str, nn.Module],
        text: str = "",
        image: Shape | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__(modules)
        self.text = text
        """The notation; of a network that it cannot write, the name."""
        self.image = image
        self.classes = classes


def build(net: str, classes: int, image: tuple[int, int, int], *, seed: int | None = None) -> Network:
    """The network called `net`, or written in the notation, for images (C, H, W) and so many classes.

    With `seed` the first weights follow from it alone, and the random numbers of the rest of the program stay as they
    are. Raises UsageError for an unknown name or a wrong notation, ShapeError where the layers do not fit the image.
    """
    image, classes = whole_image(image), whole_classes(classes)
    if is_notation(net):
        return parse(net, classes=classes, image=image, seed=seed)
    if net in CLASSIC:
        return parse(CLASSIC[net], classes=classes, image=image, seed=seed)
    _known(net)
    with seeded(seed):
        return Network(quick(classes, image), net, image, classes)


def parse(
    text: str, *, classes: int | None = None, image: tuple[int, int, int] | None = None, seed: int | None = None
) -> Network:
    """The network that `text` writes, as a sequence of named modules: conv1, conv1_relu, pool1, fc1, ...

    `image` (C, H, W) may be left out where INPUT names it. With `classes`, the network must end in that many numbers.
    Raises UsageError, with a caret under the place, for what is not the notation; ShapeError where layers do not fit.
    """
    net = read(text)
    placed = plan(net, image, classes)
    sizes = {item.name: sum(part.parameters for part in item.layer.parts(item.before)) for item in placed}
    if sum(sizes.values()) > MOST_PARAMETERS:
        heaviest = max(sizes, key=lambda name: sizes[name])
        raise UsageError(
            f"the network has {sum(sizes.values()):,} parameters, and {MOST_PARAMETERS:,} is the most: "
            f"make {heaviest} smaller, which has {sizes[heaviest]:,}, or POOL before it"
        )
    with seeded(seed):
        return _modules(placed, text, classes)


def input_of(net: str) -> tuple[int | None, int | None, int | None]:
    """Channels, height and width of the images that `net` fixes by itself; None for each that it leaves open.

    Raises UsageError for an unknown name or a wrong notation.
    """
    if is_notation(net):
        image = read(net).image
        return (None, None, None) if image is None else whole_image(image)
    _known(net)
    return (None, *OWN_SIDES.get(net, (None, None)))


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Random numbers that follow from `seed`, the generator left as it was; without a seed, random numbers as usual."""
    with contextlib.ExitStack() as stack:
        if seed is not None:
            # Weights are drawn on the processor wherever they go later, so that a seed means the same everywhere, and
            # torch.manual_seed is not used because it would seed every accelerator as well.
            stack.enter_context(torch.random.fork_rng(devices=[]))
            stack.enter_context(torch.device("cpu"))
            torch.default_generator.manual_seed(seed)
        yield


def is_notation(net: str) -> bool:
    """Whether `net` is meant as layers and not as a name."""
    return "->" in net or "→" in net


def _known(net: str) -> None:
    if net not in NAMES:
        raise UsageError(
            f"{net!r} is no network Pellucid knows: {did_you_mean(net, NAMES)} "
            "Or write its layers: 'INPUT -> CONV(32) -> POOL -> FC(10)'"
        )


def _modules(placed: tuple[Placed, ...], text: str, classes: int | None = None) -> Network:
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for item in placed:
        for part in item.layer.parts(item.before):
            modules[item.name + part.suffix] = _made(part)
    return Network(modules, text, placed[0].before, classes)


def _made(part: Part) -> nn.Module:
    """The module of a part, from `pellucid.nets.layers` where it stands there, else from torch; first weights drawn."""
    make = getattr(layers, part.make, None) or getattr(nn, part.make)
    module: nn.Module = make(**part.settings)
    if part.gain:
        _draw(module, part.gain)
    return module


def _draw(module: nn.Module, activation: str) -> None:
    """First weights that keep the spread of the numbers from layer to layer; biases zero.

    He et al. (2015) before a ReLU and its kin, Glorot and Bengio (2010) before tanh and sigmoid. Where nothing follows
    they stay as torch draws them, with a variance of 1/(3·fan-in): small first logits, a first loss near ln(classes).
    """
    weight, bias = module.get_parameter("weight"), getattr(module, "bias", None)
    if activation in {"tanh", "sigmoid"}:
        nn.init.xavier_uniform_(weight)
    elif activation != "none":
        nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu")
    if bias is not None:
        nn.init.zeros_(bias)

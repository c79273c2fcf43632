"""Networks by name or by notation, as torch modules whose parts can be addressed by name."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING

from torch import nn

from pellucid.errors import UsageError
from pellucid.nets import layers
from pellucid.nets.names import OWN_SIDES, named
from pellucid.nets.network import Network, seeded
from pellucid.nets.notation import read
from pellucid.nets.options import written
from pellucid.nets.plan import plan, whole_classes, whole_image
from pellucid.nets.rows import MOST_PARAMETERS, Recurrent, predictor
from pellucid.recipe import NETWORKS

if TYPE_CHECKING:
    from pellucid.nets.layer import Part
    from pellucid.nets.plan import Placed

#: The names that `build` knows.
NAMES: tuple[str, ...] = NETWORKS


def build(net: str, classes: int, image: tuple[int, int, int], *, seed: int | None = None) -> Network:
    """The network called `net`, or written in the notation, for images (C, H, W) and so many classes.

    Options of a network stand in parentheses behind its name: `resnet50(d=true)`, `mlp(512, 256)`. With `seed` the
    first weights follow from it alone, and the random numbers of the rest of the program stay as they are. Raises
    UsageError for an unknown name or option or a wrong notation, ShapeError where the layers do not fit the image.
    """
    image, classes = whole_image(image), whole_classes(classes)
    if is_notation(net):
        return parse(net, classes=classes, image=image, seed=seed)
    name, family = named(net)
    if text := family.notation():
        return parse(text, classes=classes, image=image, seed=seed)
    with seeded(seed):
        return family.network(name, classes, image)


def row_predictor(net: str, image: tuple[int, int, int], *, seed: int | None = None) -> Network:
    """A network that reads images (C, H, W) row by row and says after each what the next will be: y_t = W_hy·h_t.

    `net` is `rnn` or `lstm`, options and all. It takes (N, C, H, W) and gives (N, H, C·W), which `next_row_loss`
    compares with what came. Raises UsageError for any other network.
    """
    name, family = named(net)
    if not isinstance(family, Recurrent):
        raise UsageError(f"{net!r} does not read row by row: write rnn or lstm, say 'lstm(units=64)'")
    image = whole_image(image)
    with seeded(seed):
        return predictor(family, image, written(family, name))


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
    return (None, *OWN_SIDES.get(named(net)[0], (None, None)))


def is_notation(net: str) -> bool:
    """Whether `net` is meant as layers and not as a name."""
    return "->" in net or "→" in net


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
    if isinstance(module, nn.ConvTranspose2d) and activation != "none":
        # Each output gathers from C/groups channels, and from every S-th place of the kernel along each axis.
        fan_in = weight.shape[0] // module.groups * math.prod(module.kernel_size) / math.prod(module.stride)
        nn.init.normal_(weight, std=math.sqrt((1 if activation in {"tanh", "sigmoid"} else 2) / fan_in))
    elif activation in {"tanh", "sigmoid"}:
        nn.init.xavier_uniform_(weight)
    elif activation == "linear":
        nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="linear")
    elif activation != "none":
        nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu")
    if bias is not None:
        nn.init.zeros_(bias)

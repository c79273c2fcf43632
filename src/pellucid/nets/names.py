"""The networks that have a name, and how a name with options in parentheses is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pellucid.errors import UsageError, did_you_mean
from pellucid.nets.family import Family
from pellucid.nets.googlenet import PaperGoogLeNet, TorchvisionGoogLeNet
from pellucid.nets.grammar import Reader
from pellucid.nets.mlp import MLP, Perceptron
from pellucid.nets.quick import Quick
from pellucid.nets.resnet import STAGES as RESNETS
from pellucid.nets.resnet import CifarResNet, ResNet
from pellucid.nets.rows import LSTM, Recurrent
from pellucid.nets.vgg import STAGES as VGGS
from pellucid.nets.vgg import VGG

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

#: Height and width of the images that a named network was designed for.
OWN_SIDES = {"lenet5": (32, 32)}


@dataclass(frozen=True, slots=True)
class Written(Family):
    """A network that is nothing but notation and has no options."""

    text: str

    def notation(self) -> str:
        """The notation."""
        return self.text


#: Each name: the options it takes, and those that the name itself decides.
FAMILIES: dict[str, tuple[type[Family], dict[str, Any]]] = {
    "quick": (Quick, {}),
    "lenet5": (Written, {"text": LENET5}),
    "cifar-cnn": (Written, {"text": CIFAR_CNN}),
    "perceptron": (Perceptron, {}),
    "mlp": (MLP, {}),
    **{f"vgg{depth}": (VGG, {"depth": depth, "norm": False}) for depth in VGGS},
    **{f"vgg{depth}-bn": (VGG, {"depth": depth, "norm": True}) for depth in VGGS},
    "googlenet": (TorchvisionGoogLeNet, {}),
    "googlenet-paper": (PaperGoogLeNet, {}),
    **{f"resnet{depth}": (ResNet, {"depth": depth}) for depth in RESNETS},
    **{f"resnet{depth}": (CifarResNet, {"depth": depth}) for depth in (20, 32, 56)},
    "rnn": (Recurrent, {"cell": "rnn"}),
    "lstm": (LSTM, {"cell": "lstm"}),
}


def named(net: str) -> tuple[str, Family]:
    """The name that `net` begins with, and its options. Raises UsageError for an unknown name or option."""
    name = net.partition("(")[0].strip()
    if name not in FAMILIES:
        raise UsageError(
            f"{name!r} is no network Pellucid knows: {did_you_mean(name, FAMILIES)} "
            "Or write its layers: 'INPUT -> CONV(32) -> POOL -> FC(10)'"
        )
    reader = Reader(net)
    kind, settled = FAMILIES[name]
    family = reader.options(reader.take(), kind, settled, name)
    if reader.next.kind != "end":
        reader.fail_at(
            reader.next, f"nothing follows the options of {name}; take {reader.next.text!r} out, or write layers"
        )
    return name, family

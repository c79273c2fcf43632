"""Networks without convolution, for comparison; both are nothing but notation.

`perceptron` is one layer of weights (Rosenblatt, 1958, here with the logits and the loss of today); `mlp` has hidden
layers with a ReLU.
"""

from __future__ import annotations

from dataclasses import dataclass

from pellucid.nets.family import Family
from pellucid.nets.layer import ACTIVATION
from pellucid.nets.options import COUNT, Values, option


@dataclass(frozen=True, slots=True)
class Perceptron(Family):
    """Each class is one weighted sum of the pixels."""

    def notation(self) -> str:
        """`INPUT -> FC(classes)`."""
        return "INPUT -> FC(classes)"


@dataclass(frozen=True, slots=True)
class MLP(Family):
    """Fully connected layers, `mlp(512, 256)` has two hidden ones."""

    hidden: tuple[int, ...] = option(COUNT, (512,), placed=True, many=True)
    activation: str = option(ACTIVATION, "relu")
    dropout: float = option(Values(share=True), 0.0)
    """After each hidden layer."""

    def notation(self) -> str:
        """`INPUT -> FC(512) -> ... -> FC(classes)`."""
        drop = f" -> DROPOUT({self.dropout:g})" if self.dropout else ""
        hidden = "".join(f" -> FC({units}, activation={self.activation}){drop}" for units in self.hidden)
        return f"INPUT{hidden} -> FC(classes)"

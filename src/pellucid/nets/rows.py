"""Recurrent networks that read an image row by row, from the top: `rnn` and `lstm`, and prediction of the next row.

The row at step t is x_t, with all its channels; the cell keeps a state h_t. A plain RNN has h_t = tanh(W_xh·x_t +
W_hh·h_(t−1) + b) (Elman, "Finding structure in time", 1990); an LSTM has gates that let a state pass unchanged
(Hochreiter and Schmidhuber, "Long short-term memory", 1997). A classifier makes logits of the last state; the predictor
makes the next row of every state, y_t = W_hy·h_t.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from pellucid.errors import UsageError
from pellucid.nets.family import Family, Modules
from pellucid.nets.network import Network
from pellucid.nets.options import Values, option
from pellucid.nets.sizes import Shape

#: Above this many parameters (8 GB in float32) a network is taken for a slip of the pen.
MOST_PARAMETERS = 2**31


class Rows(nn.Module):
    """An image as its rows, one step each."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, H, C·W)."""
        return x.transpose(1, 2).flatten(2)


class States(nn.Module):
    """The states of the last layer at every step, out of the pair that torch's recurrent layers give."""

    def forward(self, pair: tuple[torch.Tensor, object]) -> torch.Tensor:
        """(N, T, units) and the final states, to (N, T, units)."""
        return pair[0]


class LastState(nn.Module):
    """The state of the last layer after the last step."""

    def forward(self, pair: tuple[torch.Tensor, object]) -> torch.Tensor:
        """(N, T, units) and the final states, to (N, units)."""
        return pair[0][:, -1]


@dataclass(frozen=True, slots=True)
class Recurrent(Family):
    """`rnn` and `lstm`. The preset of 128 units in 5 layers is `lstm(units=128, layers=5, uniform=0.1)`."""

    cell: str
    units: int = option(Values(whole=(1, 100_000)), 64)
    layers: int = option(Values(whole=(1, 1000)), 1)
    dropout: float = option(Values(share=True), 0.0)
    """Between the layers, in training."""
    uniform: float = option(Values(positive=True), 0.0)
    """All first weights and biases uniform within ± this; torch's own unless given."""

    def modules(self, classes: int, image: Shape) -> Modules:
        """`rows`, `rnn` or `lstm`, `last`, `fc`."""
        modules = self.cells(image)
        modules.update(last=LastState(), fc=nn.Linear(self.units, classes))
        self.draw(modules)
        return modules

    def predictor(self, image: Shape) -> Modules:
        """`rows`, `rnn` or `lstm`, `states`, `row`: y_t = W_hy·h_t."""
        modules = self.cells(image)
        modules.update(states=States(), row=nn.Linear(self.units, image[0] * image[2], bias=False))
        self.draw(modules)
        return modules

    def cells(self, image: Shape) -> Modules:
        """The rows of an image, and the recurrent layers over them. Raises UsageError for more than could be held."""
        width, gates = image[0] * image[2], 4 if self.cell == "lstm" else 1
        first, other = (gates * self.units * (inputs + self.units + 2) for inputs in (width, self.units))
        total = first + (self.layers - 1) * other
        if total > MOST_PARAMETERS:
            raise UsageError(
                f"{self.cell}(units={self.units}, layers={self.layers}) has {total:,} parameters, "
                f"and {MOST_PARAMETERS:,} is the most: write fewer units, say {self.cell}(units=128)"
            )
        make = nn.LSTM if self.cell == "lstm" else nn.RNN
        # Dropout stands between layers, so torch warns where there is but one.
        dropout = self.dropout if self.layers > 1 else 0.0
        cells = make(width, self.units, num_layers=self.layers, dropout=dropout, batch_first=True)
        return Modules([("rows", Rows()), (self.cell, cells)])

    def draw(self, modules: Modules) -> None:
        """First weights, where they are not torch's own."""
        if self.uniform:
            for weight in nn.ModuleDict(modules).parameters():
                nn.init.uniform_(weight, -self.uniform, self.uniform)


@dataclass(frozen=True, slots=True)
class LSTM(Recurrent):
    """`lstm`."""

    forget_bias: float | str = option(Values(positive=True, words=("none",)), "none")
    """The first bias of the forget gates: at 1 or more a state is kept from the start (Jozefowicz et al., "An empirical
    exploration of recurrent network architectures", 2015). Left as the other weights are drawn unless given."""

    def draw(self, modules: Modules) -> None:
        """As of any cell; then the biases of the forget gates."""
        super(LSTM, self).draw(modules)
        if isinstance(self.forget_bias, str):
            return
        for name, bias in modules[self.cell].named_parameters():
            if name.startswith("bias"):
                # The gates stand in the order input, forget, cell, output; torch adds two biases to each.
                given = self.forget_bias if name.startswith("bias_ih") else 0.0
                nn.init.constant_(bias.detach()[self.units : 2 * self.units], given)


def predictor(family: Recurrent, image: Shape, text: str) -> Network:
    """A network that gives for each row of an image what it takes for the next: (N, C, H, W) to (N, H, C·W)."""
    return Network(OrderedDict(family.predictor(image)), text, image)


def next_row_loss(y_ntd: torch.Tensor, x_nchw: torch.Tensor) -> torch.Tensor:
    """Mean squared error of predicted rows y_1 ... y_(H−1) against the rows 2 ... H that came; a scalar.

    The last prediction is about a row below the image, and does not count.
    """
    rows_ntd = x_nchw.transpose(1, 2).flatten(2)
    return F.mse_loss(y_ntd[:, :-1], rows_ntd[:, 1:])

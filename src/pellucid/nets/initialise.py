"""First weights drawn by other rules than the network's own, and how the spread of the numbers fares with them.

A layer with n inputs a unit adds up n products: with weights of variance v its outputs have n·v times the mean square
of its inputs. Xavier (Glorot and Bengio, 2010) chooses v so that neither the outputs nor the gradients fade or grow, He
et al. (2015) twice as large since a ReLU halves the mean square, and an orthogonal matrix (Saxe et al., 2013) keeps
every length as it is.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from pellucid.errors import UsageError, did_you_mean
from pellucid.nets.grammar import Reader
from pellucid.nets.network import seeded
from pellucid.nets.options import Values, option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Initialiser:
    """One rule, and its options."""

    def draw(self, weight_od: Tensor) -> None:
        """Fill the weights of one layer, or one gate: (O, D) or (O, C, ...)."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Own(Initialiser):
    """What each layer of torch draws when it is made: uniform within ±1/√n."""


@dataclass(frozen=True, slots=True)
class Uniform(Initialiser):
    """Uniform within ± a."""

    a: float = option(Values(positive=True), 0.1, placed=True)

    def draw(self, weight_od: Tensor) -> None:
        """Uniform within ± a, whatever the layer's size."""
        nn.init.uniform_(weight_od, -self.a, self.a)


@dataclass(frozen=True, slots=True)
class TruncatedNormal(Initialiser):
    """Normal with this deviation, drawn again where it is more than two deviations from 0."""

    deviation: float = option(Values(positive=True), 0.05, placed=True)

    def draw(self, weight_od: Tensor) -> None:
        """Within ± two deviations."""
        nn.init.trunc_normal_(weight_od, std=self.deviation, a=-2 * self.deviation, b=2 * self.deviation)


@dataclass(frozen=True, slots=True)
class Xavier(Initialiser):
    """Uniform with variance 2/(inputs + outputs)."""

    def draw(self, weight_od: Tensor) -> None:
        """Uniform within ± √(6/(inputs + outputs))."""
        nn.init.xavier_uniform_(weight_od)


@dataclass(frozen=True, slots=True)
class He(Initialiser):
    """Normal with variance 2/inputs."""

    def draw(self, weight_od: Tensor) -> None:
        """Normal with deviation √(2/inputs)."""
        nn.init.kaiming_normal_(weight_od, nonlinearity="relu")


@dataclass(frozen=True, slots=True)
class Orthogonal(Initialiser):
    """Rows (or columns, where they are fewer) at right angles, each of length `gain`."""

    gain: float = option(Values(positive=True), 1.0, placed=True)

    def draw(self, weight_od: Tensor) -> None:
        """A random orthogonal matrix times the gain; of a kernel, all axes behind the first count as one."""
        nn.init.orthogonal_(weight_od, self.gain)


INITIALISERS: dict[str, type[Initialiser]] = {
    "torch": Own,
    "uniform": Uniform,
    "truncated-normal": TruncatedNormal,
    "xavier": Xavier,
    "he": He,
    "orthogonal": Orthogonal,
}


class _Reader(Reader):
    subject = "the initialiser"


def read_initialiser(text: str) -> Initialiser:
    """`uniform(0.1)` and the like. Raises UsageError, with a caret, for an unknown name or option."""
    name = text.partition("(")[0].strip()
    if name not in INITIALISERS:
        raise UsageError(f"{name!r} is no initialiser Pellucid knows: {did_you_mean(name, INITIALISERS)}")
    reader = _Reader(text)
    rule = reader.options(reader.take(), INITIALISERS[name], {}, name)
    if reader.next.kind != "end":
        reader.fail_at(reader.next, f"nothing follows the options of {name}; take {reader.next.text!r} out")
    return rule


def initialise(model: nn.Module, kind: str, seed: int | None = None) -> nn.Module:
    """Draw the weights of convolutions, linear and recurrent layers anew; the model itself is changed and given back.

    `kind` is `torch` (what each layer draws by itself), `uniform` (within ±0.1, or `uniform(a)`), `truncated-normal`
    (deviation 0.05, or another in parentheses), `xavier`, `he` or `orthogonal` (or `orthogonal(gain)`). Biases become 0
    but with `torch`. Normalisation stays as it is. Each gate of a recurrent layer is drawn as a matrix of its own. With
    a seed the weights follow from it alone. Raises UsageError for an unknown kind.
    """
    rule = read_initialiser(kind)
    with seeded(seed), torch.no_grad():
        for module in model.modules():
            if isinstance(module, _DRAWN):
                # Drawn on the processor, wherever they live, so that a seed means the same everywhere.
                _own(module) if isinstance(rule, Own) else _drawn(module, rule)
    return model


_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_DRAWN = (nn.Linear, *_CONVOLUTIONS, nn.RNNBase)


def _own(module: nn.Module) -> None:
    twin = copy.deepcopy(module).cpu()
    twin.reset_parameters()  # type: ignore[operator]
    module.load_state_dict(twin.state_dict())


def _drawn(module: nn.Module, rule: Initialiser) -> None:
    for name, weight in module.named_parameters(recurse=False):
        if "bias" in name:
            weight.zero_()
        else:
            for matrix in _matrices(module, name, weight):
                fresh = torch.empty_like(matrix, device="cpu", memory_format=torch.contiguous_format)
                rule.draw(fresh)
                matrix.copy_(fresh)


def _matrices(module: nn.Module, name: str, weight: Tensor) -> Iterator[Tensor]:
    """The weights as matrices (O, what each of the O adds up): gates apart, groups apart."""
    if isinstance(module, nn.RNNBase) and not name.startswith("weight_hr"):
        gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
        yield from weight.chunk(gates)
    elif isinstance(module, _CONVOLUTIONS):
        for group in weight.chunk(module.groups):
            # A transposed convolution has its inputs first.
            yield group.transpose(0, 1) if module.transposed else group
    else:
        yield weight

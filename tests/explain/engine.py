"""Tapes whose numbers are torch's: a small pass written out operation by operation, its gradients from autograd."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from pellucid.explain import Explanation, Node, Tape, Term

Array = npt.NDArray[Any]

#: What the tests hold explanations of float32 to; the bound that users meet is ten times as wide.
BOUND = 1e-5


class Pass:
    """A pass as it is computed: `leaf` and `op` put down a tensor of torch's and give it back."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        torch.set_num_threads(1)
        self.draw = torch.Generator().manual_seed(seed)
        self.dtype = dtype
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}

    def random(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.draw, dtype=self.dtype)

    def leaf(self, kind: str, name: str, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and kind in {"input", "parameter"}:
            tensor.requires_grad_()
        self.nodes.append(Node(name, kind, shape=tuple(tensor.shape)))
        self.tensors[name] = tensor
        return tensor

    def op(self, name: str, op: str, inputs: list[str | None], tensor: Tensor, **attributes: Any) -> Tensor:
        self.nodes.append(Node(name, op, tuple(inputs), attributes, tuple(tensor.shape), source=f"net.py:1: {name}"))
        self.tensors[name] = tensor
        return tensor

    def tape(self, loss: str | None = None, **more: Any) -> Tape:
        named = {name: tensor for name, tensor in self.tensors.items() if tensor.requires_grad}
        gradients: dict[str, Array] = {}
        if loss is not None:
            found: Any = torch.autograd.grad(
                self.tensors[loss], list(named.values()), allow_unused=True, retain_graph=True
            )
            gradients = {name: g.numpy() for name, g in zip(named, found, strict=True) if g is not None}
        values = {name: tensor.detach().numpy() for name, tensor in self.tensors.items()}
        inputs = tuple(node.name for node in self.nodes if node.op == "input")
        precision = str(self.dtype).removeprefix("torch.")
        fields: dict[str, Any] = {"inputs": inputs, "loss": loss, "precision": precision, **more}
        return Tape(nodes=list(self.nodes), values=values, gradients=gradients, **fields)


def everyday(*, training: bool = False, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tape:
    """A convolution, batch norm, a pooling with ties, one weight used by two layers, x·x, and cross-entropy."""
    p = Pass(seed, dtype)
    w1, b1 = p.leaf("parameter", "conv1.weight", p.random(6, 3, 3, 3)), p.leaf("parameter", "conv1.bias", p.random(6))
    gamma, beta = p.leaf("parameter", "bn.weight", p.random(6)), p.leaf("parameter", "bn.bias", p.random(6))
    mean = p.leaf("buffer", "bn.running_mean", p.random(6))
    variance = p.leaf("buffer", "bn.running_var", p.random(6).abs() + 0.5)
    tied = p.leaf("parameter", "conv2.weight", p.random(6, 6, 1, 1))
    w, b = p.leaf("parameter", "fc.weight", p.random(4, 54)), p.leaf("parameter", "fc.bias", p.random(4))
    labels = p.leaf("constant", "labels", torch.tensor([3, 1]))
    x = p.leaf("input", "input", p.random(2, 3, 8, 8))
    c = p.op(
        "conv1",
        "convolution",
        ["input", "conv1.weight", "conv1.bias"],
        functional.conv2d(x, w1, b1),
        stride=(1, 1),
        padding=0,
    )
    names = ["conv1", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"]
    n = functional.batch_norm(c, mean.clone(), variance.clone(), gamma, beta, training)
    n = p.op("bn", "batch_norm", list(names), n, training=training, eps=1e-5, output="y")
    # Halves only, so that many windows have several largest numbers.
    r = p.op("relu", "relu", ["bn"], n.relu())
    m = p.op("pool", "max_pool", ["relu"], functional.max_pool2d(r, 2), kernel=2)
    first = p.op("conv2", "convolution", ["pool", "conv2.weight", None], functional.conv2d(m, tied))
    second = p.op("conv2@2", "convolution", ["conv2", "conv2.weight", None], functional.conv2d(first, tied))
    total = p.op("add", "add", ["conv2@2", "pool"], second + m)
    square = p.op("square", "multiply", ["add", "add"], total * total)
    flat = p.op("flatten", "flatten", ["square"], square.flatten(1), start=1)
    y = p.op("fc", "linear", ["flatten", "fc.weight", "fc.bias"], functional.linear(flat, w, b) / 1)
    settings = {"operation": "cross_entropy", "smoothing": 0.1, "reduction": "mean"}
    loss = functional.cross_entropy(y, labels, label_smoothing=0.1)
    p.op("loss", "loss", ["fc", "labels", None], loss, **settings)
    return p.tape("loss", training=training, output="fc", aliases={"stem": "pool"})


def recurrent(layers: int = 2, seed: int = 0, *, interior: bool = True) -> Tape:
    """An LSTM as torch computes it in one operation, its interior from cells written out, and a linear classifier."""
    p = Pass(seed)
    units, wide = 5, 4
    net = torch.nn.LSTM(wide, units, layers, batch_first=True)
    names: list[str | None] = []
    for name, weight in net.named_parameters():
        p.leaf("parameter", f"lstm.{name}", weight)
        names.append(f"lstm.{name}")
    w, b = p.leaf("parameter", "fc.weight", p.random(3, units)), p.leaf("parameter", "fc.bias", p.random(3))
    labels = p.leaf("constant", "labels", torch.tensor([2, 0]))
    x = p.leaf("input", "input", p.random(2, 6, wide))
    y, (h_n, c_n) = net(x)
    inputs: list[str | None] = ["input", None, None, *names]
    p.op("lstm", "lstm", inputs, y, output="y")
    p.op("lstm.h_n", "lstm", inputs, h_n, of="lstm", output="h_n")
    p.op("lstm.c_n", "lstm", inputs, c_n, of="lstm", output="c_n")
    last = p.op("select", "select", ["lstm.h_n"], h_n[-1], axis=0, index=layers - 1)
    out = p.op("fc", "linear", ["select", "fc.weight", "fc.bias"], functional.linear(last, w, b))
    # The output at every step has a share in the loss as well.
    both = p.op("mean", "mean", ["lstm"], y.mean(1), axes=(1,), keep=False)
    shared = p.op("fc@2", "linear", ["mean", "fc.weight", "fc.bias"], functional.linear(both, w, b))
    total = p.op("add", "add", ["fc", "fc@2"], out + shared)
    p.op("loss", "loss", ["add", "labels", None], functional.cross_entropy(total, labels), operation="cross_entropy")
    tape = p.tape("loss", output="add")
    return _opened(tape, net, inputs, layers) if interior else tape


def _opened(tape: Tape, net: torch.nn.LSTM, inputs: list[str | None], layers: int) -> Tape:
    """The tape with the gates, cells and states of every step, and their gradients, computed cell by cell."""
    below = [torch.from_numpy(tape.values["input"])[:, t] for t in range(6)]
    inside: dict[str, list[Tensor]] = {}
    for layer in range(layers):
        w_x, w_h, b_x, b_h = (getattr(net, f"{k}_l{layer}") for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        h = c = torch.zeros(2, net.hidden_size)
        for t in range(6):
            i, f, g, o = (functional.linear(below[t], w_x, b_x) + functional.linear(h, w_h, b_h)).chunk(4, 1)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            c = f * c + i * g
            h = o * c.tanh()
            for name, tensor in zip("ifgoch", (i, f, g, o, c, h), strict=True):
                inside.setdefault(f"{layer}.{name}", []).append(tensor)
            below[t] = h
    ends = torch.stack([inside[f"{layer}.h"][-1] for layer in range(layers)])
    pulls = [torch.from_numpy(tape.gradients["lstm"]), torch.from_numpy(tape.gradients["lstm.h_n"])]
    every = [tensor for steps in inside.values() for tensor in steps]
    found = iter(torch.autograd.grad([torch.stack(below, 1), ends], every, pulls))
    nodes, values, gradients = list(tape.nodes), dict(tape.values), dict(tape.gradients)
    for name, steps in inside.items():
        values[f"lstm.{name}"] = torch.stack(steps, 1).detach().numpy()
        gradients[f"lstm.{name}"] = torch.stack([next(found) for _ in steps], 1).numpy()
        attributes = {"of": "lstm", "output": name, "recomputed": True}
        nodes.append(Node(f"lstm.{name}", "lstm", tuple(inputs), attributes, (2, 6, net.hidden_size)))
    return replace(tape, nodes=nodes, values=values, gradients=gradients)


def indices(shape: tuple[int, ...], rng: np.random.Generator, most: int = 12) -> list[tuple[int, ...]]:
    """Some indices of an array of that shape, all of them where there are few."""
    every = list(itertools.product(*map(range, shape))) if np.prod(shape) <= most else []
    return every or [tuple(int(rng.integers(n)) for n in shape) for _ in range(most)]


def spelled(name: str, index: tuple[int, ...]) -> str:
    return f"{name}[{','.join(map(str, index))}]" if index else name


def checked(tape: Tape, address: str, bound: float = BOUND) -> Explanation:
    """The explanation, held to the tests' bound, its terms' values to those that the tape has at their addresses."""
    made = tape.why(address)
    assert made.engine_value == tape.value(address)
    assert abs(made.value - made.engine_value) == abs(made.residual)
    assert abs(made.residual) <= bound * made.scale + 1e-37, made.text()
    terms: list[Term] = list(made.terms)
    for term in [*terms[:5], *terms[-5:]]:
        assert term.value == tape.value(term.address), term
        if term.factor is not None:
            tape.value(term.factor)
    if made.combine == "sum" and terms:
        assert abs(sum(term.contribution for term in terms) - made.value) <= 1e-12 * made.scale
    return made

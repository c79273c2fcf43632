"""The flow of gradients against torch's, and the sentences about it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from tests.explain.building import Builder
from torch import nn

from pellucid.errors import UsageError
from pellucid.explain.flow import EXPLODED, VANISHED, gradient_flow, norm
from pellucid.explain.record import record


def test_layers_have_torchs_norms() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).eval()
    x, labels = torch.randn(2, 1, 6, 6), torch.tensor([1, 3])
    flow = gradient_flow(record(net, x, labels))
    values = [net[0](x)]
    values += [net[1](values[0])]
    values += [net[4](net[3](net[2](values[1])))]
    loss = nn.functional.cross_entropy(values[-1], labels)
    slopes = [float(slope.norm()) for slope in torch.autograd.grad(loss, values, retain_graph=True)]
    loss.backward()  # type: ignore[no-untyped-call]
    assert [layer.op for layer in flow.layers] == ["convolution", "batch_norm", "linear"]
    np.testing.assert_allclose([layer.gradient for layer in flow.layers], slopes, rtol=1e-5)
    np.testing.assert_allclose(
        [layer.rms for layer in flow.layers],
        [s / np.sqrt(v.numel()) for s, v in zip(slopes, values, strict=True)],
        rtol=1e-5,
    )
    factors = np.array([layer.factor for layer in flow.layers[:-1]], dtype=float)
    np.testing.assert_allclose(factors, [slopes[0] / slopes[1], slopes[1] / slopes[2]], rtol=1e-5)
    assert flow.layers[-1].factor is None
    wanted = dict(net.named_parameters())
    found = [p for layer in flow.layers for p in layer.parameters]
    assert [p.name for p in found] == list(wanted)
    for parameter in found:
        tensor = wanted[parameter.name]
        assert tensor.grad is not None
        assert parameter.gradient == pytest.approx(float(tensor.grad.norm()), rel=1e-5)
        assert parameter.weight == pytest.approx(float(tensor.detach().norm()), rel=1e-6)
        ratio = parameter.gradient / parameter.weight if parameter.weight else None
        assert parameter.ratio == (None if ratio is None else pytest.approx(ratio))
    assert len(flow.sentences) == 1
    assert "it arrives" in flow.sentences[0]
    assert flow.text().splitlines()[1].startswith(f"0  {slopes[0]:.3g}  {slopes[0] / slopes[1]:.3g}  weight ")


class Steps(nn.Module):
    """A recurrent network whose last state is classified; its weights decide what the gradient does."""

    def __init__(self, kind: type[nn.RNN | nn.LSTM], scale: float) -> None:
        super().__init__()
        self.net = kind(2, 4, num_layers=2, batch_first=True)
        self.fc = nn.Linear(4, 3)
        with torch.no_grad():
            for name, tensor in self.net.named_parameters():
                if "weight_hh" in name:
                    tensor.copy_(torch.eye(4).repeat(tensor.shape[0] // 4, 1) * scale)
                elif "bias" in name:
                    tensor.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.fc(self.net(x)[0][:, -1]))


@pytest.mark.parametrize(("scale", "word"), [(0.2, "it has vanished"), (0.99, "it arrives")])
def test_steps_have_the_norms_of_an_unrolled_network(scale: float, word: str) -> None:
    torch.manual_seed(1)
    net, x, labels = Steps(nn.RNN, scale), 0.01 * torch.randn(2, 9, 2), torch.tensor([0, 2])
    flow = gradient_flow(record(net, x, labels))
    states = unrolled(net, x)
    loss = nn.functional.cross_entropy(net.fc(states[1][-1]), labels)
    for layer in (0, 1):
        slopes = [float(slope.norm()) for slope in torch.autograd.grad(loss, states[layer], retain_graph=True)]
        time = flow.times[layer]
        assert (time.name, time.layer) == ("net", layer)
        np.testing.assert_allclose(time.gradients, slopes, rtol=1e-4)
        ratios = [a / b for a, b in itertools.pairwise(slopes)]
        np.testing.assert_allclose(np.array(time.factors, dtype=float), ratios, rtol=1e-4)
    assert word in flow.sentences[-1]
    assert flow.sentences[-1].startswith("net, layer 1, from the last step back to the first: ")


def unrolled(net: Steps, x: torch.Tensor) -> list[list[torch.Tensor]]:
    """Every state of a two-layer tanh network, step by step."""
    below, states = list(x.unbind(1)), []
    weights = dict(net.net.named_parameters())
    for layer in (0, 1):
        h, made = torch.zeros(x.shape[0], 4), []
        w, u = weights[f"weight_ih_l{layer}"], weights[f"weight_hh_l{layer}"]
        for step in below:
            h = torch.tanh(step @ w.T + h @ u.T)
            made.append(h)
        below = made
        states.append(made)
    return states


def test_a_gradient_that_explodes() -> None:
    torch.manual_seed(2)
    net = Steps(nn.RNN, 4.0)
    flow = gradient_flow(record(net, torch.zeros(1, 9, 2), [0]))
    assert "it has exploded" in flow.sentences[-1]
    assert flow.times[1].gradients[0] > EXPLODED * flow.times[1].gradients[-1]


def test_an_lstm_in_time() -> None:
    torch.manual_seed(3)
    flow = gradient_flow(record(Steps(nn.LSTM, 0.5), torch.randn(2, 5, 2), [0, 1]))
    assert [len(time.gradients) for time in flow.times] == [5, 5]
    assert len(flow.sentences) == 3
    assert "net layer 0, |dL/dh| from the first step to the last:" in flow.text()


def test_layers_that_a_gradient_does_not_reach() -> None:
    build = Builder(1)
    x = build.linear("second", build.op("relu", "relu", build.linear("first", build.input(1, 3), 4)), 2)
    tape = build.tape(x, loss="second")
    tape.gradients = {"second": np.ones((1, 2)), "first": np.zeros((1, 4)), "second.weight": np.ones((2, 4))}
    flow = gradient_flow(tape)
    assert [layer.factor for layer in flow.layers] == [0.0, None]
    assert flow.sentences == ("from second back to first: nothing is left of the gradient: it has vanished",)
    assert flow.layers[1].parameters[1].gradient == 0.0
    tape.gradients["first"] = np.full((1, 4), np.nan)
    assert "not a finite number" in gradient_flow(tape).sentences[0]
    tape.gradients = {"second": np.zeros((1, 2))}
    assert gradient_flow(tape).sentences == ("from second back to first: no gradient arrives",)


@pytest.mark.parametrize(
    ("left", "word"), [(VANISHED * 0.9, "vanished"), (VANISHED * 1.1, "arrives"), (EXPLODED * 1.1, "exploded")]
)
def test_the_thresholds_are_those_documented(left: float, word: str) -> None:
    build = Builder(2)
    tape = build.tape(build.linear("b", build.linear("a", build.input(1, 1), 1), 1), loss="b")
    tape.gradients = {"a": np.array([[left]]), "b": np.array([[1.0]])}
    assert word in gradient_flow(tape).sentences[0]


def test_a_tape_without_a_loss() -> None:
    build = Builder(3)
    with pytest.raises(UsageError, match="the tape has no gradients, so none flow"):
        gradient_flow(build.tape(build.linear("fc", build.input(1, 2), 2)))


def test_the_norm_of_large_and_of_no_numbers() -> None:
    assert norm(np.full((2, 2), 1e30, dtype=np.float32)) == pytest.approx(2e30)
    assert norm(np.zeros(0)) == 0.0
    many = np.random.default_rng(0).normal(size=(3, 100_001)).astype(np.float32)
    assert norm(many) == pytest.approx(float(np.linalg.norm(many.astype(np.float64))), rel=1e-12)

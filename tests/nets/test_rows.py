"""Networks that read row by row: the rows they see, that they learn, predict and remember."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from pellucid import nets
from pellucid.errors import UsageError
from pellucid.nets.rows import Rows

PRESET = "units=128, layers=5, uniform=0.1"


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """scikit-learn's handwritten digits within [0, 1]: 1,400 to learn from, and 397 others."""
    pictures, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))
    x_nchw = torch.tensor(pictures, dtype=torch.float32).reshape(-1, 1, 8, 8)[order] / 16
    y = torch.tensor(labels)[order]
    return x_nchw[:1400], y[:1400], x_nchw[1400:], y[1400:]


def train(model: nn.Module, loss: Callable[[torch.Generator], torch.Tensor], steps: int, rate: float = 0.005) -> None:
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        value = loss(generator)
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        # Through many steps a gradient may grow without bound (Pascanu et al., 2013).
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()


def test_rows_are_rows() -> None:
    x_nchw = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    rows_nhd = Rows()(x_nchw)
    assert rows_nhd.shape == (2, 4, 15)
    assert torch.equal(rows_nhd[1, 2], torch.cat([x_nchw[1, channel, 2] for channel in range(3)]))


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_the_classifier_is_the_textbooks(cell: str) -> None:
    """By its formula, step by step, in float64: an Elman cell, and an LSTM with its four gates."""
    model = nets.build(f"{cell}(units=6)", 3, (2, 4, 5), seed=0).double()
    x_nchw = torch.randn(2, 2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    get = {name.split(".")[1]: weight.detach() for name, weight in model.named_parameters() if cell in name}
    h, c = torch.zeros(2, 6).double(), torch.zeros(2, 6).double()
    for t in range(4):
        x = x_nchw[:, :, t].flatten(1)
        z = x @ get["weight_ih_l0"].T + get["bias_ih_l0"] + h @ get["weight_hh_l0"].T + get["bias_hh_l0"]
        if cell == "rnn":
            h = z.tanh()
        else:
            i, f, g, o = z.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
    expected = h @ model.get_parameter("fc.weight").T + model.get_parameter("fc.bias")
    torch.testing.assert_close(model(x_nchw), expected)


def test_first_weights() -> None:
    model = nets.build(f"lstm({PRESET})", 10, (1, 8, 8), seed=0)
    spread = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    assert spread.abs().max().item() <= 0.1
    assert spread.var().item() == pytest.approx(0.1**2 / 3, rel=0.02)
    kept = nets.build("lstm(units=5, layers=2, forget-bias=3)", 10, (1, 8, 8), seed=0)
    for layer in (0, 1):
        gates = sum(kept.get_parameter(f"lstm.bias_{which}_l{layer}") for which in ("ih", "hh"))
        assert isinstance(gates, torch.Tensor)
        assert (gates[5:10] == 3).all()
        assert (gates[:5].abs() < 2).all()
    with pytest.raises(UsageError, match="rnn has no option 'forget-bias'"):
        nets.build("rnn(forget-bias=1)", 10, (1, 8, 8))


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_learns_digits_row_by_row(cell: str) -> None:
    x_nchw, labels, others, truth = digits()
    model = nets.build(cell, 10, (1, 8, 8), seed=0)

    def loss(generator: torch.Generator) -> torch.Tensor:
        batch = torch.randint(1400, (64,), generator=generator)
        return nn.functional.cross_entropy(model(x_nchw[batch]), labels[batch])

    train(model, loss, 300)
    with torch.no_grad():
        assert (model(others).argmax(1) == truth).float().mean().item() > 0.9


@pytest.mark.slow
def test_the_preset_learns_digits() -> None:
    """Five layers of 128 units, all weights within ±0.1 at first: learnt, if with more patience."""
    x_nchw, labels, others, truth = digits()
    model = nets.build(f"lstm({PRESET})", 10, (1, 8, 8), seed=0)

    def loss(generator: torch.Generator) -> torch.Tensor:
        batch = torch.randint(1400, (64,), generator=generator)
        return nn.functional.cross_entropy(model(x_nchw[batch]), labels[batch])

    train(model, loss, 500, rate=0.003)
    with torch.no_grad():
        assert (model(others).argmax(1) == truth).float().mean().item() > 0.9


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_the_next_row_is_predicted_better_than_by_the_last(cell: str) -> None:
    x_nchw, _, others, _ = digits()
    model = nets.row_predictor(f"{cell}(units=64)", (1, 8, 8), seed=0)
    assert [name for name, _ in model.named_parameters()][-1] == "row.weight"  # y = W·h, no bias

    def loss(generator: torch.Generator) -> torch.Tensor:
        batch = torch.randint(1400, (64,), generator=generator)
        return nets.next_row_loss(model(x_nchw[batch]), x_nchw[batch])

    train(model, loss, 300)
    with torch.no_grad():
        error = nets.next_row_loss(model(others), others).item()
    repeated = ((others[:, 0, 1:] - others[:, 0, :-1]) ** 2).mean().item()
    assert nets.next_row_loss(others[:, 0], others).item() == pytest.approx(repeated, rel=1e-5)
    assert error < 0.6 * repeated


def test_a_prediction_knows_nothing_of_the_row_it_predicts() -> None:
    model = nets.row_predictor("lstm(units=8, layers=2)", (2, 6, 4), seed=0)
    x_nchw = torch.randn(1, 2, 6, 4, generator=torch.Generator().manual_seed(0))
    changed = x_nchw.clone()
    changed[:, :, 3:] += 1
    y, other = model(x_nchw), model(changed)
    assert y.shape == (1, 6, 8)
    assert torch.equal(y[:, :3], other[:, :3])
    assert not torch.equal(y[:, 3], other[:, 3])
    with pytest.raises(UsageError, match=r"'resnet18' does not read row by row: write rnn or lstm"):
        nets.row_predictor("resnet18", (1, 8, 8))


def remembered(net: str, rows: int, seed: int) -> float:
    """Share of symbols told from the first row alone, `rows` − 1 empty rows later."""
    model = nets.build(net, 8, (1, rows, 8), seed=seed)

    def pictures(number: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        symbols = torch.randint(8, (number,), generator=generator)
        x_nchw = torch.zeros(number, 1, rows, 8)
        x_nchw[torch.arange(number), 0, 0, symbols] = 1
        return x_nchw, symbols

    def loss(generator: torch.Generator) -> torch.Tensor:
        x_nchw, symbols = pictures(64, generator)
        return nn.functional.cross_entropy(model(x_nchw), symbols)

    train(model, loss, 300)
    x_nchw, symbols = pictures(512, torch.Generator().manual_seed(1))
    with torch.no_grad():
        return float((model(x_nchw).argmax(1) == symbols).float().mean())


def test_an_rnns_memory_fades_where_an_lstms_holds() -> None:
    rnn, lstm = "rnn(units=32)", "lstm(units=32, forget-bias=4)"
    # Eight rows are no trouble to either; of 48 the RNN loses the first, by chance sooner or later.
    assert min(remembered(rnn, 8, 0), remembered(lstm, 8, 0)) > 0.95
    means = {net: sum(remembered(net, 48, seed) for seed in range(2)) / 2 for net in (rnn, lstm)}
    assert means[lstm] > 0.95
    assert means[rnn] < 0.8

"""Make the pictures of docs/networks.md: how long an RNN and an LSTM remember, and how a network's numbers spread."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import torch
from torch import nn

from pellucid import nets

mpl.use("Agg")
from matplotlib import pyplot as plt

IMAGES = Path(__file__).parent / "images"
ROWS = (4, 8, 16, 24, 32, 48, 64)
SEEDS = 3
STEPS = 300
CELLS = {"rnn(units=32)": "#bf616a", "lstm(units=32, forget-bias=4)": "#5e81ac"}
DEPTH, UNITS = 20, 256
SPREADS = {"he": "#5e81ac", "xavier": "#a3be8c", "torch": "#d08770", "uniform(0.1)": "#b48ead"}


def symbols(number: int, rows: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose first row has one of eight places lit and whose other rows are empty; and which place it is."""
    labels = torch.randint(8, (number,), generator=generator)
    x_nchw = torch.zeros(number, 1, rows, 8)
    x_nchw[torch.arange(number), 0, 0, labels] = 1
    return x_nchw, labels


def remembered(net: str, rows: int, seed: int) -> float:
    """Share of symbols told right after `rows` rows, training done."""
    model = nets.build(net, 8, (1, rows, 8), seed=seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.005)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        x_nchw, labels = symbols(64, rows, generator)
        loss = nn.functional.cross_entropy(model(x_nchw), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    x_nchw, labels = symbols(512, rows, generator)
    with torch.no_grad():
        return float((model(x_nchw).argmax(1) == labels).float().mean())


def memory(path: Path) -> None:
    """Accuracy against the number of rows, each of three seeds a dot, their mean a line."""
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for net, colour in CELLS.items():
        found = [[remembered(net, rows, seed) for seed in range(SEEDS)] for rows in ROWS]
        means = [sum(each) / SEEDS for each in found]
        print(net, dict(zip(ROWS, (round(mean, 3) for mean in means), strict=True)))
        axes.plot(ROWS, means, color=colour, label=net)
        for rows, each in zip(ROWS, found, strict=True):
            axes.scatter([rows] * SEEDS, each, color=colour, s=12, zorder=3)
    axes.axhline(1 / 8, color="grey", linestyle=":", label="guessing")
    axes.set(xlabel="rows, of which the first says the class", ylabel="accuracy", ylim=(0, 1.05), xticks=ROWS)
    axes.legend(loc="center left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def spread(path: Path) -> None:
    """The variance behind each of twenty ReLU layers, by initialiser."""
    text = f"INPUT(1,1,{UNITS}) -> [FC({UNITS})]*{DEPTH} -> FC(10)"
    # Not the seed of the weights, whose numbers would be the pictures' own.
    x_nchw = torch.randn(512, 1, 1, UNITS, generator=torch.Generator().manual_seed(1))
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for kind, colour in SPREADS.items():
        model = nets.initialise(nets.parse(text), kind, seed=0)
        found = [row.variance for row in nets.variances(model, x_nchw).rows if row.layer == "ReLU()"]
        print(kind, f"{found[0]:.3g} ... {found[-1]:.3g}")
        axes.semilogy(range(1, DEPTH + 1), found, color=colour, label=kind, marker="o", markersize=3)
    axes.set(xlabel="layer", ylabel="variance of the activations", xticks=range(2, DEPTH + 1, 2))
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Draw both."""
    torch.set_num_threads(1)
    IMAGES.mkdir(exist_ok=True)
    memory(IMAGES / "memory.png")
    spread(IMAGES / "variances.png")


if __name__ == "__main__":
    main()

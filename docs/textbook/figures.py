"""Draw the figures of these pages with the textbook's own functions: `python docs/textbook/figures.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from pellucid.textbook import OPERATIONS, OPTIMISERS, initialiser, loss, schedule
from pellucid.textbook.approximation import fit, predict
from pellucid.textbook.recurrent import LSTM, RNN

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.hashsalt": "textbook",
    "svg.fonttype": "none",
}


def save(figure: Figure, name: str) -> None:
    """Lines as SVG, many coloured areas as PNG, which is then far smaller."""
    if name in {"surfaces", "optimisers"}:
        figure.savefig(HERE / f"{name}.png", dpi=110)
    else:
        figure.savefig(HERE / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Any]:
    """A figure of rows × columns, its size in inches."""
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained")


def convolution() -> None:
    """One output number: the patch, the kernel, the products, and their sum."""
    x, w = np.arange(9.0).reshape(1, 1, 3, 3), np.arange(4.0).reshape(1, 1, 2, 2)
    y, _ = OPERATIONS["convolution"].forward(x, w)
    terms = OPERATIONS["convolution"].terms((0, 0, 0, 0), x, w)
    products = terms.groups[0].contribution.reshape(2, 2)
    figure, axes = panels(1, 4, 8, 2.3)
    grids = [("input x", x[0, 0]), ("kernel w", w[0, 0]), ("products x·w", products), ("output y", y[0, 0])]
    for axis, (title, grid) in zip(axes, grids, strict=True):
        number_grid(axis, grid)
        axis.set_title(title)
    for axis, size in ((axes[0], 2), (axes[3], 1)):
        axis.add_patch(Rectangle((-0.5, -0.5), size, size, fill=False, edgecolor="#c03a2b", linewidth=2.5))
    figure.suptitle(f"y[0,0,0,0]:  {terms.numbers()}", x=0.02, ha="left")
    save(figure, "convolution")


def number_grid(axis: Axes, grid: Any) -> None:
    """A small matrix with its numbers in it."""
    axis.imshow(grid, cmap="Blues", vmin=0, vmax=max(float(grid.max()), 1) * 1.6)
    for (i, j), value in np.ndenumerate(grid):
        axis.text(j, i, f"{value:g}", ha="center", va="center")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def activations() -> None:
    """Every activation and its slope."""
    names = [
        *("sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu"),
        *("silu", "hard_tanh", "relu6", "hard_sigmoid", "hard_swish", "softplus"),
    ]
    x = np.linspace(-4, 8, 481)
    figure, axes = panels(3, 4, 9, 6)
    for axis, name in zip(axes.flat, names, strict=True):
        y, kept = OPERATIONS[name].forward(x)
        axis.plot(x, y, color="#1f5fa8", label="f")
        axis.plot(
            x, OPERATIONS[name].backward(np.ones_like(x), kept)["x"], color="#c03a2b", linestyle="--", label="slope f′"
        )
        axis.axhline(0, color="#999", linewidth=0.5)
        axis.set(title=name, ylim=(-1.3, min(float(y.max()), 3) + 0.3))
    axes[0, 0].legend()
    save(figure, "activations")


def surfaces() -> None:
    """Squared error and cross-entropy of one sigmoid unit over its weight and bias."""
    rng = np.random.default_rng(0)
    target = np.repeat([0.0, 1.0], 10)
    x = rng.standard_normal(20) + 2 * target - 1
    w, b = np.linspace(-12, 12, 121), np.linspace(-12, 12, 121)
    figure, axes = panels(1, 2, 8, 3.6)
    for axis, z, title in zip(
        axes, loss.surface(w, b, x, target), ("mean squared error", "cross-entropy"), strict=True
    ):
        drawn = axis.contourf(w, b, z.T, levels=18, cmap="viridis")
        figure.colorbar(drawn, ax=axis)
        axis.set(title=title, xlabel="weight", ylabel="bias")
    save(figure, "surfaces")


def approximations() -> None:
    """One hidden layer of 4, 16 and 64 sigmoids on a sine and on a step; the largest error stands beside each."""
    x = np.linspace(-1, 1, 401)
    figure, axes = panels(2, 3, 9, 4.6)
    for row, (name, y) in enumerate((("sine", np.sin(np.pi * x)), ("step", np.where(x > 0, 1.0, 0.0)))):
        counted = np.abs(x) >= 0.05 if name == "step" else np.ones_like(x, dtype=bool)
        for axis, units in zip(axes[row], (4, 16, 64), strict=True):
            found = predict(fit(x, y, units), x)
            worst = float(np.abs(found - y)[counted].max())
            axis.plot(x, y, color="#999", linewidth=3, label=name)
            axis.plot(x, found, color="#c03a2b", linewidth=1.2, label="network")
            axis.set_title(f"{name}, {units} units: largest error {worst:.2g}")
    axes[0, 0].legend()
    axes[1, 0].set_xlabel("error of the step counted from 0.05 beside the jump")
    save(figure, "approximation")


def optimisers() -> None:
    """Where each optimiser goes in a long narrow valley, f = (a² + 20·b²)/2, in 60 steps."""
    bend, start = np.array([1.0, 20.0]), np.array([-4.0, 1.4])
    rates = {
        "gradient_descent": 0.08,
        "momentum": 0.02,
        "nesterov": 0.02,
        "adagrad": 0.8,
        "adadelta": 1.0,
        "rmsprop": 0.1,
        "adam": 0.3,
        "adamw": 0.3,
    }
    a, b = np.meshgrid(np.linspace(-5, 2, 120), np.linspace(-2, 2, 120))
    figure, axes = panels(2, 4, 10, 4.4)
    for axis, (name, rate) in zip(axes.flat, rates.items(), strict=True):
        rule, p = OPTIMISERS[name], start
        state, path = rule.start(p), [p]
        for step in range(1, 61):
            p, state = rule.step(p, bend * p, state, step, lr=rate)
            path.append(p)
        axis.contour(a, b, (a**2 + 20 * b**2) / 2, levels=12, colors="#ccc", linewidths=0.7)
        axis.plot(*np.array(path).T, color="#1f5fa8", marker=".", markersize=3, linewidth=0.9)
        axis.plot(0, 0, "x", color="#c03a2b")
        axis.set_title(f"{name}, η = {rate:g}")
    save(figure, "optimisers")


def schedules() -> None:
    """The five schedules over 60 epochs."""
    figure, axis = panels(1, 1, 7, 3)
    t = range(60)
    axis.plot(t, [schedule.step(e, 0.1, every=15) for e in t], label="step: halved every 15", drawstyle="steps-post")
    axis.plot(t, [schedule.exponential(e, 0.1, gamma=0.95) for e in t], label="exponential, γ = 0.95")
    axis.plot(t, [schedule.cosine(e, 0.1, total=60) for e in t], label="cosine")
    axis.plot(t, [schedule.one_cycle(e, 0.1, total=60) for e in t], label="one cycle")
    plateau, rates = schedule.Plateau(0.1, factor=0.3, patience=5), []
    for e in t:
        rates.append(plateau.rate)
        plateau = plateau.after(max(1 - e / 20, 0.2))
    axis.plot(t, rates, label="plateau: loss flat from epoch 16", linestyle="--")
    axis.set(xlabel="epoch", ylabel="learning rate")
    axis.legend()
    save(figure, "schedules")


def gradients_in_time() -> None:
    """How much of the last step's gradient reaches each step before it: RNN and LSTM, the same size."""
    rng, size, length = np.random.default_rng(0), 16, 40
    x = rng.standard_normal((8, length, 8))
    figure, axis = panels(1, 1, 7, 3)
    for recurrence, gates, bias, label in (
        (RNN, 1, 0.0, "RNN: state h"),
        (LSTM, 4, 0.0, "LSTM: cell c, forget bias 0"),
        (LSTM, 4, 3.0, "LSTM: cell c, forget bias 3"),
    ):
        weights = [rng.standard_normal((gates * size, d)) / np.sqrt(d) / 2 for d in (8, size)]
        b = np.zeros(gates * size)
        if gates == 4:
            b[size : 2 * size] = bias
        states = [None] * len(recurrence.states)
        _, kept = recurrence.forward(x, *states, *weights, b, None)
        state = recurrence.states[-1]
        gradients = recurrence.backward({f"{state}_n": np.ones((1, 8, size))}, kept)[f"0.{state}"]
        norms = np.sqrt((gradients**2).sum(axis=(0, 2)))
        axis.semilogy(range(length), norms / norms[-1], label=label)
    axis.set(xlabel="time step", ylabel="gradient norm, last step = 1")
    axis.legend()
    save(figure, "gradients_in_time")


def signals() -> None:
    """The spread of activations through 30 layers of ReLU, by the weights they begin with."""
    rng, width = np.random.default_rng(0), 256
    kinds: dict[str, Callable[[], Any]] = {
        "uniform ±0.05": lambda: initialiser.uniform(rng, (width, width), -0.05, 0.05),
        "Xavier": lambda: initialiser.xavier(rng, (width, width)),
        "orthogonal": lambda: initialiser.orthogonal(rng, (width, width)),
        "He": lambda: initialiser.he(rng, (width, width)),
    }
    figure, axis = panels(1, 1, 7, 3)
    for name, draw in kinds.items():
        x = rng.standard_normal((200, width))
        spread = [float(np.sqrt((x**2).mean()))]
        for _ in range(30):
            x = np.maximum(x @ draw().T, 0)
            spread.append(float(np.sqrt((x**2).mean())))
        axis.semilogy(spread, label=name)
    axis.set(xlabel="layer (each followed by ReLU)", ylabel="root mean square")
    axis.legend()
    save(figure, "initialisers")


def main() -> None:
    """All figures, in this folder."""
    with mpl.rc_context(STYLE):
        drawings: tuple[Callable[[], None], ...] = (
            convolution,
            activations,
            surfaces,
            approximations,
            optimisers,
            schedules,
            gradients_in_time,
            signals,
        )
        for draw in drawings:
            draw()


if __name__ == "__main__":
    main()

"""What each part of `quick` and its recipe is worth: CIFAR-10 in half a minute, one part taken away at a time.

The first run finds how wide `quick` is and how many epochs fit into the time (`--budget`); every other run has the same
width and epochs, so that what a part costs in time shows as time, and what it brings as accuracy. Validation accuracy
of the last epoch, with the seconds of training; the seeds are the same for all, and the difference to the whole recipe
is taken seed by seed. The test pictures are not looked at.

    python benchmarks/contributions.py [--seconds 30] [--seeds 5] [PART …]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
from torch import nn

import pellucid
from pellucid import nets
from pellucid.nets.layers import Scale
from pellucid.nets.quick import Block
from pellucid.scores import spread
from pellucid.training.leave import machine_facts

OUT = Path(__file__).parent / "results" / "contributions.json"

Change = Callable[[nets.Network], None]


@dataclass(frozen=True)
class Arm:
    """The recipe without one of its parts."""

    name: str
    change: Change | None = None
    """What is done to the network when it is built."""
    settings: dict[str, Any] = field(default_factory=dict)


def learnt_stem(model: nets.Network) -> None:
    """Its filters drawn by He's rule and learnt; images are not looked at."""
    conv = cast("nn.Conv2d", model.get_submodule("stem.conv"))
    nn.init.kaiming_normal_(conv.weight.requires_grad_(True), nonlinearity="relu")
    model.look_at = lambda x_nchw: None  # type: ignore[method-assign]


def random_directions(model: nets.Network) -> None:
    """The stem stays at the random directions that it begins with."""
    model.look_at = lambda x_nchw: None  # type: ignore[method-assign]


def drawn(model: nets.Network) -> None:
    """Convolutions drawn as torch draws them, not the identity."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and not name.startswith("stem"):
            module.reset_parameters()


def learnt_scales(model: nets.Network) -> None:
    """The scales of the normalisations are learnt."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.requires_grad_(True)


def mean_pool(model: nets.Network) -> None:
    """The mean of each map goes to the head, not its largest number."""
    model.pool = nn.AdaptiveAvgPool2d(1)


def unscaled(model: nets.Network) -> None:
    """The features go to the head as they are."""
    model.scale = Scale(1.0)


class Plain(Block):
    """A block whose second convolution has no way round it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the block's, less the sum."""
        return cast("torch.Tensor", self.residual(self.relu(self.norm(self.pool(self.conv(x))))))


def plain_blocks(model: nets.Network) -> None:
    """No sums around the second convolutions."""
    for module in model.modules():
        if isinstance(module, Block):
            module.__class__ = Plain


class PoolLast(Block):
    """A block that pools after its first ReLU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the block's, in the usual order."""
        x = self.pool(self.relu(self.norm(self.conv(x))))
        return cast("torch.Tensor", x + self.residual(x))


def pool_last(model: nets.Network) -> None:
    """Convolution, normalisation, ReLU, pool: the usual order."""
    for module in model.modules():
        if isinstance(module, Block):
            module.__class__ = PoolLast


ARMS = (
    Arm("whole"),
    Arm("stem learnt, not whitening", learnt_stem),
    Arm("stem of random directions", random_directions),
    Arm("convolutions drawn, not the identity", drawn),
    Arm("scales of the normalisations learnt", learnt_scales),
    Arm("shifts at the same rate", settings={"bias_rate": 1.0}),
    Arm("no sums", plain_blocks),
    Arm("pool behind the ReLU", pool_last),
    Arm("mean for largest number", mean_pool),
    Arm("features unscaled", unscaled),
    Arm("no mirroring", settings={"augment": ("shift",)}),
    Arm("no shifting", settings={"augment": ("flip",)}),
    Arm("constant rate", settings={"schedule": "constant"}),
    Arm("momentum, not Nesterov's", settings={"optimizer": "momentum"}),
    Arm("no weight decay", settings={"weight_decay": 0.0}),
    Arm("float32", settings={"precision": "float32"}),
)


def trained(arm: Arm, settings: dict[str, Any]) -> dict[str, Any]:
    """The last epoch's line of a run, and the recipe it settled."""
    build = nets.build

    def changed(*arguments: Any, **options: Any) -> nets.Network:
        model = build(*arguments, **options)
        if arm.change is not None:
            arm.change(model)
        return model

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(nets, "build", changed):
        run = pellucid.train("cifar10", out=Path(folder) / "run", **{**settings, **arm.settings})
        lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        recipe = json.loads((run.folder / "recipe.json").read_text(encoding="utf-8"))
    return {**json.loads(lines[-1]), "recipe": recipe}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("parts", nargs="*", help="those of these names alone, beside the whole")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    arms = [arm for arm in ARMS if arm.name in {"whole", *(options.parts or [arm.name for arm in ARMS])}]
    first = trained(ARMS[0], {"budget": options.seconds})
    recipe = first["recipe"]
    settled = {
        "net": recipe["net"],
        "epochs": recipe["optimisation"]["epochs"],
        "lr": recipe["optimisation"]["lr"],
        **{key: recipe["engine"][key] for key in ("precision", "layout", "threads")},
    }
    runs: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in arms}
    for seed in range(options.seeds):
        for arm in arms:
            row = trained(arm, {**settled, "seed": seed})
            row.pop("recipe")
            runs[arm.name].append(row)
            print(f"{seed} {arm.name}: {row['val_accuracy']:.4f} in {row['seconds']:.1f} s", flush=True)
        # After every seed, so that a measurement that is broken off has something to show.
        document = {
            "what": f"cifar10, {options.seconds:g} s, validation accuracy of the last epoch",
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine_facts(),
            "seconds": options.seconds,
            "settled": settled,
            "seeds": list(range(seed + 1)),
            "rows": [_row(name, runs) for name in runs],
        }
        OUT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _row(name: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    accuracy = [row["val_accuracy"] for row in runs[name]]
    worth = [whole["val_accuracy"] - own for whole, own in zip(runs["whole"], accuracy, strict=True)]
    return {
        "without": name,
        "val_accuracy": spread(accuracy) if len(accuracy) > 1 else accuracy[0],
        "worth": spread(worth) if len(worth) > 1 else worth[0],
        "seconds": round(statistics.median(row["seconds"] for row in runs[name]), 2),
        "runs": [{key: row[key] for key in ("val_accuracy", "accuracy", "seconds")} for row in runs[name]],
    }


if __name__ == "__main__":
    main()

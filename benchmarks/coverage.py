"""How much of a network can be explained, and how exactly: our networks, and others' with random weights.

Each network is recorded with a loss and a step of its optimiser, in evaluation and in training mode. A computing node
is an operation that makes new numbers (reshapes and other moves are not counted); it is covered if the textbook has its
rule, forwards and, where the loss depends on it, backwards. Then numbers are drawn at random, node by node in a
shuffled order until there are enough: values, gradients, updated weights. Each is asked for its explanation, and the
residual is measured against the rule's own scale.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py [NETWORK …]      writes results/coverage.json (their rows)
    OMP_NUM_THREADS=1 python benchmarks/coverage.py --bfloat16       the same in bfloat16: coverage_bfloat16.json

The others' networks need `pip install transformers` and `pip install --no-deps torchvision==0.29.2`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pellucid import nets
from pellucid.data.cores import usable_cores
from pellucid.errors import PellucidError, VerificationError
from pellucid.explain.lower import PASS_THROUGH
from pellucid.explain.node import LEAVES, Node, operation_of
from pellucid.explain.record import forget, record
from pellucid.explain.tape import Tape
from pellucid.training.machine import processor

OUT = Path(__file__).parent / "results"
BATCH, CLASSES = 2, 10
KINDS = ("values", "gradients", "updates")
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Network:
    """A network to record: how to make it, and the images it takes."""

    make: Callable[[], nn.Module]
    image: Shape


def own(name: str, image: Shape) -> Network:
    return Network(lambda: nets.build(name, CLASSES, image, seed=0), image)


def hub(family: str, image: Shape = (3, 64, 64)) -> Network:
    """A network of transformers, in its usual size."""

    def make() -> nn.Module:
        torchvision()  # transformers looks for it
        library = importlib.import_module("transformers")
        settings = getattr(library, f"{family}Config")(num_labels=CLASSES)
        torch.manual_seed(0)
        return getattr(library, f"{family}ForImageClassification")(settings)  # type: ignore[no-any-return]

    return Network(make, image)


def vision(name: str, image: Shape = (3, 64, 64), **settings: Any) -> Network:
    """A network of torchvision."""

    def make() -> nn.Module:
        models = torchvision().models
        torch.manual_seed(0)
        return getattr(models, name)(weights=None, num_classes=CLASSES, **settings)  # type: ignore[no-any-return]

    return Network(make, image)


def torchvision() -> Any:
    """The package beside a torch that its compiled part was not built for: two operators are declared, never called."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
        return importlib.import_module("torchvision")


NETWORKS: dict[str, Network] = {
    "quick": own("quick", (3, 32, 32)),
    "lenet5": own("lenet5", (1, 32, 32)),
    "cifar-cnn": own("cifar-cnn", (3, 32, 32)),
    "vgg11": own("vgg11", (3, 64, 64)),
    "vgg16-bn": own("vgg16-bn", (3, 64, 64)),
    "googlenet": own("googlenet", (3, 64, 64)),
    "googlenet-paper": own("googlenet-paper", (3, 64, 64)),
    "resnet18": own("resnet18", (3, 64, 64)),
    "resnet50": own("resnet50", (3, 64, 64)),
    "resnet20": own("resnet20", (3, 32, 32)),
    "rnn": own("rnn", (1, 28, 28)),
    "lstm, 5 layers": own("lstm(units=128, layers=5)", (1, 28, 28)),
    "transformers ResNet": hub("ResNet"),
    "transformers ConvNeXt": hub("ConvNext"),
    "transformers MobileNetV1": hub("MobileNetV1"),
    "transformers MobileNetV2": hub("MobileNetV2"),
    "transformers EfficientNet": hub("EfficientNet"),
    "transformers RegNet": hub("RegNet"),
    "transformers BiT": hub("Bit"),
    "transformers PoolFormer": hub("PoolFormer"),
    "torchvision DenseNet": vision("densenet121"),
    "torchvision ShuffleNetV2": vision("shufflenet_v2_x1_0"),
    "torchvision GoogLeNet": vision("googlenet", init_weights=True),
    "torchvision SqueezeNet": vision("squeezenet1_1"),
}


# --- recording ----------------------------------------------------------------------------------------------------


def recorded(network: Network, training: bool, kind: torch.dtype, seed: int) -> Tape:
    """A pass with its loss and one step of AdamW, which has taken one step before, so that its memory is not empty."""
    torch.manual_seed(seed)
    model = network.make().to(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    images = torch.randn(BATCH, *network.image).to(kind)
    labels = torch.arange(BATCH) % CLASSES
    for parameter in model.parameters():
        parameter.grad = 0.01 * torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    settled(model, network.image, kind)
    tape = record(model, images, labels, optimizer=optimizer, clip={"norm": 1.0}, training=training)
    forget(model)
    return tape


@torch.no_grad()
def settled(model: nn.Module, image: Shape, kind: torch.dtype) -> None:
    """Running statistics that fit the weights: those of one random batch.

    With those of a fresh network (0 and 1) the values of a deep one fade to nothing in evaluation mode.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(torch.randn(4 * BATCH, *image).to(kind))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


# --- asking -------------------------------------------------------------------------------------------------------


@dataclass
class Answers:
    """What came back for one kind of number: how many answered, the greatest residual, and what went wrong."""

    asked: int = 0
    greatest: float = 0.0
    where: str = ""
    beyond: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)

    def ask(self, tape: Tape, address: str) -> None:
        """One question."""
        self.asked += 1
        try:
            relative = tape.why(address).relative
        except VerificationError as error:
            self.beyond.append(str(error))
        except PellucidError as error:
            self.refused[str(error)] += 1
        else:
            # NaN compares with nothing: it is the greatest of all.
            if not relative <= self.greatest:
                self.greatest, self.where = relative, address

    def plain(self) -> dict[str, Any]:
        """For the results."""
        return {
            "asked": self.asked,
            "greatest_residual": self.greatest,
            "at": self.where,
            "beyond_the_bound": self.beyond,
            "refused": sorted(self.refused),
        }


def drawn(names: list[str], shapes: dict[str, tuple[int, ...]], count: int, rng: np.random.Generator) -> Iterator[Any]:
    """`count` names and indices: every name once, in random order, before any comes again."""
    names = [name for name in names if 0 not in shapes[name]]
    for number in range(count if names else 0):
        if number % len(names) == 0:
            order = rng.permutation(len(names))
        name = names[order[number % len(names)]]
        yield name, [int(rng.integers(size)) for size in shapes[name]]


def written(name: str, index: list[int]) -> str:
    return f"{name}{index}".replace(" ", "") if index else name


def computing(tape: Tape) -> list[Node]:
    """The operations that make new numbers, one node each."""
    return [node for node in tape.nodes if node.op not in {*LEAVES, *PASS_THROUGH, "loss"} and node.is_primary]


def has_slope(node: Node) -> bool:
    """Whether the node's rule has a way back."""
    known = operation_of(node)
    return known is not None and any(argument.differentiable for argument in known[0].arguments)


def measured(tape: Tape, counts: tuple[int, int, int], seed: int) -> dict[str, Any]:
    """Coverage and residuals of one tape."""
    rng = np.random.default_rng(seed)
    nodes = computing(tape)
    backwards = [node for node in nodes if node.name in tape.gradients]
    shapes = {name: value.shape for name, value in tape.values.items()}
    made = [node.name for node in tape.nodes if node.op not in LEAVES]
    pulled = [name for name in tape.gradients if name != tape.loss]
    values, gradients, updates = Answers(), Answers(), Answers()
    for name, index in drawn(made, shapes, counts[0], rng):
        values.ask(tape, written(name, index))
    for name, index in drawn(pulled, shapes, counts[1], rng):
        gradients.ask(tape, written(f"{name}.grad", index))
    for name, index in drawn(list(tape.update.parameters) if tape.update else [], shapes, counts[2], rng):
        updates.ask(tape, written(f"{name}.next", index))
    forward = sum(operation_of(node) is not None for node in nodes)
    backward = sum(has_slope(node) for node in backwards)
    return {
        "computing_nodes": len(nodes),
        "with_forward_rule": forward,
        "with_gradient": len(backwards),
        "with_gradient_rule": backward,
        "share": round((forward + backward) / max(len(nodes) + len(backwards), 1), 6),
        "without_rule": dict(Counter(node.op for node in nodes if operation_of(node) is None)),
        "values": values.plain(),
        "gradients": gradients.plain(),
        "updates": updates.plain(),
        "notes": list(tape.notes),
    }


# --- the table ----------------------------------------------------------------------------------------------------

HEAD = (
    f"{'network':27} {'mode':5} {'nodes':>11} {'backwards':>11} {'share':>7} {'values':>8} {'grads':>8} {'updates':>8}"
)


def line(row: dict[str, Any]) -> str:
    """One line of the table."""
    cells = [f"{row[kind]['greatest_residual']:.1e}" for kind in KINDS]
    bad = sum(len(row[kind]["beyond_the_bound"]) + len(row[kind]["refused"]) for kind in KINDS)
    rules = f"{row['with_forward_rule']}/{row['computing_nodes']}"
    back = f"{row['with_gradient_rule']}/{row['with_gradient']}"
    mode = "train" if row["training"] else "eval"
    return (
        f"{row['network']:27} {mode:5} {rules:>11} {back:>11} {row['share']:7.1%} "
        + " ".join(f"{cell:>8}" for cell in cells)
        + (f"  {bad} NOT ANSWERED" if bad else "")
        + f"  {row['seconds']:.0f} s"
    )


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    found = {}
    for package in ("torch", "numpy", "transformers", "torchvision"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def write(path: Path, document: dict[str, Any], rows: list[Any], left_out: dict[str, str], whole: bool) -> None:
    """The results; of some networks only, in place of what the file has of them, if it was made in the same way."""
    today = datetime.now(UTC).date().isoformat()
    rows = [{**row, "date": today} for row in rows]
    if not whole:
        old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if {key: old.get(key) for key in document} != document:
            print(f"not written: {path.name} is missing, or was made with other settings or versions")
            return
        new = {row["network"] for row in rows}
        rows = [*rows, *(row for row in old["rows"] if row["network"] not in new)]
        left_out = {**old["left_out"], **left_out}
    order = list(NETWORKS)
    rows.sort(key=lambda row: (order.index(row["network"]), row["training"]))
    whole_document = {**document, "left_out": left_out, "rows": rows}
    path.write_text(json.dumps(whole_document, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="How much of each network can be explained, and how exactly.")
    parser.add_argument("networks", nargs="*", help="names, all unless given")
    parser.add_argument("--bfloat16", action="store_true", help="weights, images and arithmetic in bfloat16")
    parser.add_argument("--values", type=int, default=500, help="random values a network and mode")
    parser.add_argument("--gradients", type=int, default=500, help="random gradients")
    parser.add_argument("--updates", type=int, default=200, help="random updated weights")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    kind = torch.bfloat16 if given.bfloat16 else torch.float32
    counts = (given.values, given.gradients, given.updates)
    rows: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    print(HEAD, flush=True)
    for name in given.networks or NETWORKS:
        for training in (False, True):
            start = time.perf_counter()
            try:
                tape = recorded(NETWORKS[name], training, kind, given.seed)
            except NotImplementedError as error:  # the engine has no such arithmetic on this device
                left_out[name] = str(error)
                print(f"{name:27} left out: {error}", flush=True)
                break
            row = {"network": name, "training": training, **measured(tape, counts, given.seed)}
            rows.append({**row, "seconds": round(time.perf_counter() - start, 1)})
            print(line(rows[-1]), flush=True)
            for part in KINDS:
                for sentence in [*row[part]["beyond_the_bound"], *row[part]["refused"]]:
                    print(f"    {sentence}", flush=True)
    document = {
        "what": "computing nodes with a rule; greatest |residual|/scale of random values, gradients and updates",
        "machine": {"processor": processor(), "cores": usable_cores(), "threads": 1, **versions()},
        "precision": str(kind).removeprefix("torch."),
        "seed": given.seed,
        "batch": BATCH,
        "asked": dict(zip(KINDS, counts, strict=True)),
    }
    path = OUT / ("coverage_bfloat16.json" if given.bfloat16 else "coverage.json")
    write(path, document, rows, left_out, whole=not given.networks)
    answered = all(not row[part]["beyond_the_bound"] and not row[part]["refused"] for row in rows for part in KINDS)
    return 0 if answered and all(row["share"] >= 0.99 for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())

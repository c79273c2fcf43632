"""What each of several processes does in test_processes.py, which starts this file with torchrun."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pellucid import nets
from pellucid.bundle.recogniser import infer
from pellucid.data.batches import Batches, Shard
from pellucid.data.preprocess import Preprocess
from pellucid.errors import DataError, PellucidError
from pellucid.recipe import Engine, Recipe, settle
from pellucid.training import processes
from pellucid.training.distil import Teacher
from pellucid.training.finetune import freeze
from pellucid.training.inference import infer_together
from pellucid.training.loop import Training
from pellucid.training.losses import make_loss

STEPS, PICTURES, CLASSES = 20, 271, 4
NET = "INPUT -> CONV(8) -> POOL -> CONV(8) -> POOL -> FC(16) -> FC(classes)"
NORMALISED = "INPUT -> CONV(8, norm=batch) -> POOL -> FC(16) -> FC(classes)"
PREPROCESS = Preprocess(size=(16, 16), resize="crop", channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)

#: Name -> what is different from plain momentum.
CASES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd"},
    "momentum": {"optimizer": "momentum", "ema": 0.9, "clip_norm": 0.5},
    "weights": {"balance": "weights"},
    "focal": {"balance": "weights", "loss": "focal"},
    "mixup": {"augment": ("shift", "mixup", "cutmix"), "balance": "weights"},
    "sample": {"balance": "sample", "augment": ("flip",)},
    "teacher": {"balance": "weights"},
    "frozen": {"freeze": 1},
    "own": {},
    "parts": {"balance": "weights"},
}


def margin(logits_nk: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A loss of one's own."""
    return nn.functional.multi_margin_loss(logits_nk, labels)


def training(case: str, shard: Shard) -> Training:
    settings = dict(CASES.get(case, {}))
    recipe = settle(
        Recipe(engine=Engine(precision="float32", layout="nchw", threads=1)),
        **{"optimizer": "momentum", "lr": 0.05, "schedule": "cosine", "epochs": 5, "batch_size": 64, **settings},
    )
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (PICTURES, 16, 16, 3), generator=generator).to(torch.uint8)
    # Lopsided, so that weights differ, and each process's part of a batch weighs something else.
    labels = (torch.rand(PICTURES, generator=generator) ** 2 * CLASSES).long()
    augment = tuple(recipe.pictures.augment or ())
    balanced = recipe.optimisation.balance == "sample"
    batches = Batches(pixels, labels, PREPROCESS, augment, 64, 3, balanced=balanced, shard=shard)
    model = nets.build(NORMALISED if case == "normalised" else NET, CLASSES, (3, 16, 16), seed=1)
    if case == "frozen":
        freeze(model, 1)
    teacher = None
    if case == "teacher":
        teacher = Teacher(nets.build(NET, CLASSES, (3, 16, 16), seed=2).eval(), PREPROCESS, tuple(range(CLASSES)))
    loss = margin if case == "own" else make_loss(recipe, labels.bincount(minlength=CLASSES).tolist())
    made = Training(model, batches, recipe, loss, teacher)
    made.parts = 3 if case == "parts" else 1
    return made


def losses(case: str, shard: Shard) -> tuple[list[float], Training]:
    """The whole batch's loss at each of the first steps."""
    found: list[float] = []
    work, before = training(case, shard), 0.0
    while len(found) < STEPS:
        for pictures in work.run_epoch():
            before = 0.0 if work.step % len(work.batches) == 1 else before
            found.append((float(work.loss_sum) - before) / pictures)
            before = float(work.loss_sum)
    return found[:STEPS], work


def validation(n: int = 301) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), np.uint8)


def evaluation() -> tuple[nn.Module, Any]:
    model = nets.build(NET, CLASSES, (3, 16, 16), seed=1).eval()
    return model, infer(model, PREPROCESS, validation())


def refusal(work: Callable[[], Any]) -> list[Any]:
    try:
        processes.led(work)
    except PellucidError as error:
        return [type(error).__name__, str(error), getattr(error, "__notes__", [])]
    raise AssertionError


def bad() -> None:
    raise DataError("the pictures are gone; put them back")


def same(tensors: list[torch.Tensor]) -> bool:
    """Whether they are process 0's, to the bit."""
    copies = [tensor.detach().clone() for tensor in tensors]
    processes.spread(copies)
    return not processes.any_of(not all(torch.equal(a, b) for a, b in zip(copies, tensors, strict=True)))


def told(rank: int) -> dict[str, Any]:
    """What this process finds, in touch with the others."""
    answer: dict[str, Any] = {"losses": {}, "same": {}}
    shard = Shard(rank, processes.size())
    for case in CASES:
        answer["losses"][case], work = losses(case, shard)
        answer["same"][case] = same([*work.model.parameters(), *work.kept.parameters()])
    _, work = losses("normalised", shard)
    answer["apart"] = same(list(work.model.buffers()))
    work.align()
    answer["aligned"] = same(list(work.model.buffers()))
    model, alone = evaluation()
    answer["evaluated"] = np.array_equal(alone, infer_together(model, PREPROCESS, validation(), CLASSES))
    answer["few"] = infer_together(model, PREPROCESS, validation(3), CLASSES).shape
    answer["refused"] = refusal(bad)
    # One process is asked to stop after its third step, and all do after the next.
    work = training("sgd", shard)
    work.wish = lambda: rank == 1 and work.step == 3
    for _ in work.run_epoch():
        if work.stopping:
            break
    answer["stopped"] = work.step
    # One process has less memory than the others.
    work = training("sgd", shard)
    if rank == 1:
        forward = work.forward

        def narrow(x_nhwc: torch.Tensor) -> Any:
            if len(x_nhwc) > 10:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(x_nhwc)

        work.forward = narrow  # type: ignore[assignment]
    next(work.run_epoch())
    answer["parts"], answer["narrow"] = work.parts, float(work.loss_sum) / work.seen
    return answer


def threads_of_gloo() -> int:
    names = (path.read_text("utf-8") for path in Path("/proc/self/task").glob("*/comm"))
    return sum("gloo" in name for name in names)


def main(out: Path) -> None:
    torch.set_num_threads(1)
    rank = processes.rank()
    for _ in range(2):  # a script may train twice
        with processes.together():
            agreed = processes.agreed({"told": [rank, 0.1]})
    with processes.together():
        answer = {**told(rank), "agreed": agreed, "threads within": threads_of_gloo()}
    # Trainings may stand in cycles of references.
    gc.collect()
    answer["threads after"] = threads_of_gloo()
    (out / f"{rank}.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What a training run tells while it goes on, one event at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pellucid.bundle.head import head_of
from pellucid.bundle.recogniser import Recogniser
from pellucid.data.audit import Audit
from pellucid.nets import Variances
from pellucid.recipe import Recipe
from pellucid.training.prepare import Task
from pellucid.training.probe import Measured
from pellucid.training.sweep import Sweep


@dataclass(frozen=True)
class Understood:
    """What the data and the recipe were taken to mean; nothing has been read or written yet."""

    task: Task


@dataclass(frozen=True)
class Reading:
    """Pictures being decoded."""

    done: int
    total: int


@dataclass(frozen=True)
class Audited:
    """Every picture has been opened; what is wrong with them is put up with."""

    audit: Audit
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Started:
    """The pictures are read, the engine is chosen, the folder exists."""

    folder: Path
    recipe: Recipe
    image: tuple[int, int, int]
    """What the network is shown: channels, height, width."""
    measured: Measured
    model: nn.Module
    left_out: tuple[str, ...]
    found: Sweep | None = None
    """With `--lr find`, the sweep over rates."""
    variances: Variances | None = None
    """With `--init`, how far weights and numbers spread, layer by layer, for the first batch."""


@dataclass(frozen=True)
class Noted:
    """Something happened that whoever watches should know, and the run goes on."""

    text: str


@dataclass(frozen=True)
class Progress:
    """Some steps further."""

    epoch: int
    """From 1."""
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Epoch:
    """An epoch is done: its line of `metrics.jsonl`, and whether its weights are the best so far."""

    row: dict[str, Any]
    best: bool


@dataclass(frozen=True)
class Run:
    """A finished (or stopped) run, and the network it gave. Stands for its folder wherever a path is expected."""

    folder: Path
    recogniser: Recogniser
    scores: dict[str, Any]
    """The evaluation on val of the weights kept."""
    epoch: int
    """The epoch these weights are of; 0 for weights that were not trained here."""
    stopped: bool
    """Whether it was interrupted; `train --resume` goes on."""
    notes: tuple[str, ...]
    """What a reader of the run folder should know, such as class names that could not be drawn."""

    def to_json(self) -> dict[str, Any]:
        """What `train --json` prints and `result.json` keeps; the scores are those of val."""
        head = head_of(self.recogniser.model)
        return {
            "run": str(self.folder),
            "head": None if head is None else head.kind,
            "epoch": self.epoch,
            "stopped": self.stopped,
            "notes": list(self.notes),
            "split": "val",
            **self.scores,
        }

    def __fspath__(self) -> str:
        """The run folder."""
        return str(self.folder)


Event = Understood | Reading | Audited | Started | Noted | Progress | Epoch | Run

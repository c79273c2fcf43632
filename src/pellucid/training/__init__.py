"""Recipe -> run: the loop, losses, optimisers, the engine's measurement, checkpoints."""

from __future__ import annotations

from pellucid.training.api import find_rate, train
from pellucid.training.events import Audited, Epoch, Event, Noted, Progress, Reading, Run, Started, Understood
from pellucid.training.runs import resume, run
from pellucid.training.seeds import Seeding, Seeds, is_set, resume_seeds, run_seeds
from pellucid.training.sweep import Sweep

__all__ = [
    "Audited",
    "Epoch",
    "Event",
    "Noted",
    "Progress",
    "Reading",
    "Run",
    "Seeding",
    "Seeds",
    "Started",
    "Sweep",
    "Understood",
    "find_rate",
    "is_set",
    "resume",
    "resume_seeds",
    "run",
    "run_seeds",
    "train",
]

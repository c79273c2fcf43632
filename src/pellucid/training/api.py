"""`pellucid.train`: a run from Python."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import nn

from pellucid.data.audit import MAX_BAD, Fault
from pellucid.errors import UsageError, did_you_mean
from pellucid.recipe import PRESETS, Recipe, settle
from pellucid.training.events import Event, Run, Started
from pellucid.training.losses import Loss
from pellucid.training.pictures import Terms
from pellucid.training.runs import run
from pellucid.training.sweep import Sweep


def train(
    data: str | os.PathLike[str],
    *,
    net: str | nn.Module | None = None,
    loss: str | Loss | None = None,
    out: str | os.PathLike[str] | None = None,
    preset: str | Recipe = "quick",
    watch: Callable[[Event], object] | None = None,
    accept: Iterable[Fault] = (),
    max_bad: float = MAX_BAD,
    cache: bool = True,
    checkpoint_every: float | None = None,
    **settings: Any,
) -> Run:
    """Train a network on labelled pictures, as `pellucid train` does.

    `data` is a folder, a CSV file or a name. `net` is a name, a notation or a module of one's own that takes float32
    pictures (N, C, H, W) and gives logits (N, classes); it is trained in place. `loss` is a name or a function of
    logits (N, classes) and labels (N,) that gives one number. Left out, both are the preset's. `settings` are any of
    the command's flags: `epochs=3`, `batch_size=64`, `lr=0.1`, `augment=("flip",)`, `size=64`, `seed=1`, `weights=` a
    path or a run. `watch` is called with each event of the run. `accept` (leak, label-conflict, class-mismatch) and
    `max_bad` say which faults of the data are put up with, and without `cache` no decoded pictures are kept on disk.
    `checkpoint_every` is seconds between two checkpoints.

    Returns the finished run: its folder, its scores on val, and the recogniser. Raises UsageError, DataError or
    PellucidError, with a sentence that says what to do; KeyboardInterrupt when interrupted, after saving.
    """
    events = run(
        _recipe(data, net, loss, preset, settings),
        out=None if out is None else os.fspath(out),
        model=net if isinstance(net, nn.Module) else None,
        loss=loss if callable(loss) else None,
        terms=Terms(tuple(accept), max_bad, cache),
        every=checkpoint_every,
    )
    for event in events:
        if watch is not None:
            watch(event)
        if isinstance(event, Run):
            if event.stopped:
                raise KeyboardInterrupt
            return event
    raise AssertionError("a run ends with a Run")


def find_rate(
    data: str | os.PathLike[str],
    *,
    net: str | nn.Module | None = None,
    loss: str | Loss | None = None,
    preset: str | Recipe = "quick",
    **settings: Any,
) -> Sweep:
    """Look for a learning rate as `pellucid train --lr find` does, and train nothing; arguments as for `train`.

    Returns the rates tried, the losses, and the rate suggested. A module of one's own is left as it was. Raises what
    `train` raises, and PellucidError where the loss falls at no rate.
    """
    with tempfile.TemporaryDirectory() as folder:
        events = run(
            _recipe(data, net, loss, preset, {**settings, "lr": "find"}),
            out=Path(folder) / "run",
            model=copy.deepcopy(net) if isinstance(net, nn.Module) else None,
            loss=loss if callable(loss) else None,
        )
        for event in events:
            # Not a step of the run itself is taken.
            if isinstance(event, Started) and event.found is not None:
                return event.found
    raise AssertionError("a run that looks for a rate says which")


def _recipe(
    data: str | os.PathLike[str],
    net: str | nn.Module | None,
    loss: str | Loss | None,
    preset: str | Recipe,
    settings: dict[str, Any],
) -> Recipe:
    recipe = preset if isinstance(preset, Recipe) else PRESETS.get(preset)
    if recipe is None:
        raise UsageError(f"preset {preset!r} is not known: {did_you_mean(str(preset), PRESETS)}")
    named: dict[str, Any] = {"data": os.fspath(data)}
    if isinstance(settings.get("weights"), os.PathLike):
        settings = {**settings, "weights": os.fspath(settings["weights"])}
    if isinstance(net, str):
        named["net"] = net
    if isinstance(loss, str):
        named["loss"] = loss
    return settle(recipe, **named, **settings)

"""`pellucid train`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pellucid.app import options
from pellucid.app.show import Show
from pellucid.errors import UsageError, did_you_mean
from pellucid.recipe import PRESETS, Recipe
from pellucid.training import Run, read_recipe, resume, run

INTERRUPTED = 130


@dataclass(frozen=True)
class Options(Recipe):
    """Train a network on labelled pictures.

    DATA is a folder with one folder of pictures a class (or with train/, val/, test/ of such), a CSV of path,label, or
    one of: digits, mnist, fashion-mnist, cifar10, cifar100.
    """

    data: Annotated[str, tyro.conf.Positional] = ""
    """A folder, a CSV file or a name."""
    preset: str = "quick"
    """Start from a recipe by name: quick, keras-cifar. Other flags change it."""
    recipe: str = ""
    """Start from a recipe file, such as RUN/recipe.json, which repeats that run. Other flags change it."""
    out: str = ""
    """The run folder to make; by default runs/DATA-NET-N."""
    resume: str = ""
    """Go on with this run folder; no other flag is needed."""
    measure: bool = False
    """Measure the quickest engine again, though one is remembered."""
    json: bool = False
    """Print the result as one JSON document."""


def main(arguments: Sequence[str]) -> int:
    """Run `pellucid train`; returns the exit code."""
    chosen = options.parse(Options, arguments, command="train", default=_start(arguments))
    recipe = Recipe(**{field.name: getattr(chosen, field.name) for field in dataclasses.fields(Recipe)})
    events = resume(chosen.resume) if chosen.resume else run(recipe, out=chosen.out or None, measure=chosen.measure)
    show = Show(to_stderr=chosen.json)
    result: Run | None = None
    with show:
        for event in events:
            show.event(event)
            if isinstance(event, Run):
                result = event
    assert result is not None
    if chosen.json:
        print(json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False))
    return INTERRUPTED if result.stopped else 0


def _start(arguments: Sequence[str]) -> Options:
    """The recipe that the other flags change: from --preset or --recipe, which are therefore read first."""
    preset, recipe = _value(arguments, "--preset"), _value(arguments, "--recipe")
    if preset and recipe:
        raise UsageError("--preset and --recipe both say where to start from; leave one away")
    if preset and preset not in PRESETS:
        raise UsageError(f"--preset {preset!r} is not known: {did_you_mean(preset, PRESETS)}")
    start = read_recipe(Path(recipe)) if recipe else PRESETS[preset or "quick"]
    return Options(**{field.name: getattr(start, field.name) for field in dataclasses.fields(start)})


def _value(arguments: Sequence[str], flag: str) -> str:
    for i, argument in enumerate(arguments):
        if argument == flag and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(flag + "="):
            return argument.removeprefix(flag + "=")
    return ""

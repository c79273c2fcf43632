"""The options of each command, as dataclasses. Nothing here needs torch, so `--help` and a mistyped flag never wait."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import tyro

from pellucid.errors import UsageError, did_you_mean
from pellucid.recipe import PRESETS, Augmentation, Recipe, Resize, read_recipe

T = TypeVar("T")

#: As `pellucid.data.audit.Fault`, which is not imported here: it needs torch.
Fault = Literal["leak", "label-conflict", "class-mismatch"]

Run = Annotated[str, tyro.conf.Positional]
Json = Annotated[bool, tyro.conf.arg(help="JSON on stdout, all else on stderr.")]


@dataclass(frozen=True)
class Train(Recipe):
    """Train a network on labelled pictures.

    DATA is a folder with one folder of pictures a class (or with train/, val/, test/ of such), a CSV of path,label, or
    one of: digits, mnist, fashion-mnist, cifar10, cifar100.
    """

    data: Annotated[str, tyro.conf.Positional] = ""
    """A folder, a CSV file or a name."""
    preset: str = "quick"
    """quick, finetune, lecun98, keras-cifar, resnet-cifar or lstm-rows."""
    recipe: str = ""
    """Start from this file (RUN/recipe.json)."""
    out: str = ""
    """New run folder, else runs/DATA-NET-N."""
    show_recipe: bool = False
    """Print the recipe as TOML, and stop."""
    resume: str = ""
    """Go on with this run; no other flag."""
    checkpoint_every: float | None = None
    """Seconds between checkpoints."""
    seeds: int | None = None
    """Train this many seeds: mean ± sd."""
    measure: bool = False
    """Measure the engine again."""
    profile: bool = False
    """Say where a step's time goes."""
    accept: tuple[Fault, ...] = ()
    """Faults of the data that are put up with."""
    max_bad: float = 0.01
    """Share of files that may be bad."""
    no_cache: bool = False
    """Keep no decoded pictures."""
    json: Json = False

    def the_recipe(self) -> Recipe:
        """The part of the options that decides the run."""
        return Recipe(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Recipe)})


@dataclass(frozen=True)
class Eval:
    """How good a trained network is on labelled pictures: on test if DATA has it, else on val.

    pellucid eval RUN DATA; or pellucid eval A B DATA: whether two runs differ, on pictures that neither was trained on.
    """

    run: Run
    """A run folder, or a bundle."""
    second: Annotated[str, tyro.conf.Positional]
    """DATA, a folder, a CSV file or a name, as for train; or a second run, to be compared with the first."""
    third: Annotated[str, tyro.conf.Positional] = ""
    """DATA, behind two runs."""
    split: Literal["auto", "train", "val", "test"] = "auto"
    """Which pictures; auto is test, else val, and never a training picture."""
    json: Json = False

    @property
    def data(self) -> str:
        """Where the pictures are: the last of what was named."""
        return self.third or self.second

    @property
    def other(self) -> str | None:
        """The run to compare with, if two were named."""
        return self.second if self.third else None


@dataclass(frozen=True)
class Predict:
    """What a trained network sees in picture files. With --json one object a file, one a line."""

    run: Run
    """A run folder, or a bundle."""
    files: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Picture files."""
    json: Json = False


@dataclass(frozen=True)
class Explain:
    """Why a number in a trained network is what it is, for one picture.

    ADDRESS names the number: conv1[3,10,12], conv1.grad[3,10,12], conv1.weight.grad[3,0,1,1] or, after the optimiser's
    step, conv1.weight.next[3,0,1,1].
    Without one: the layers with their shapes, and the strongest chains of numbers from the answer down to the pixels.
    """

    run: Run
    """A run folder, or a bundle."""
    image: Annotated[str, tyro.conf.Positional]
    """A picture file."""
    address: Annotated[str, tyro.conf.Positional] = ""
    """The number asked for."""
    label: str = ""
    """The class whose loss the gradients are of; the network's own answer unless given."""
    html: str = ""
    """Write a page here too: the layers, the number, its path, its gradient and a weight's next step."""
    json: Json = False


@dataclass(frozen=True)
class Verify:
    """Decode the raw pictures that a bundle carries, and compare the logits with those recorded (exit code 4)."""

    run: Run
    """A run folder, or a bundle."""
    resume: bool = False
    """Instead, train the run's recipe briefly twice, kill one inside an epoch, resume it, and compare every number."""
    json: Json = False


@dataclass(frozen=True)
class Check:
    """Open every picture once and say what is wrong: bad files, doubles, leaks, two labels, classes (exit code 3).

    DATA is a folder, a CSV file or a name, as for train. What was decoded is kept, so that training begins at once.
    """

    data: Annotated[str, tyro.conf.Positional]
    """A folder, a CSV file or a name."""
    net: str = "quick"
    """The network that the pictures are for."""
    size: int | None = None
    """Side, in pixels, of the square each picture becomes. Chosen as for train unless given."""
    resize: Resize | None = None
    """How a picture becomes a square: crop its middle, stretch it, or pad it."""
    batch_size: int | None = None
    """Pictures a step, to tell the size of the last batch. As for train unless given."""
    augment: tuple[Augmentation, ...] | None = None
    """Draw pictures as the network would see them under these random changes, into --sheet."""
    sheet: str = "augmented.png"
    """Where --augment draws."""
    html: str = ""
    """Write the report with thumbnails as a page of one file."""
    full: bool = False
    """Read every file anew, and compare what was kept of it: finds what changed though size and time did not."""
    accept: tuple[Fault, ...] = ()
    """Faults that are put up with, as for train."""
    max_bad: float = 0.01
    """Share of files that may be bad."""
    no_cache: bool = False
    """Keep no decoded pictures."""
    json: Json = False


def read(command: str, arguments: Sequence[str]) -> Any:
    """The options of a command, read from its arguments.

    Flags are flat, whatever the nesting of the dataclasses behind them. Exits with 2, having said why, when the
    arguments are not understood.
    """
    match command:
        case "train":
            return _parse(Train, arguments, command, _start(arguments))
        case "eval":
            return _parse(Eval, arguments, command)
        case "predict":
            return _parse(Predict, arguments, command)
        case "explain":
            return _parse(Explain, arguments, command)
        case "check":
            return _parse(Check, arguments, command)
        case "verify":
            return _parse(Verify, arguments, command)
    raise AssertionError(command)


def _parse(kind: type[T], arguments: Sequence[str], command: str, default: T | None = None) -> T:
    chosen: T = tyro.cli(  # type: ignore[assignment]
        kind,
        prog=f"pellucid {command}",
        args=list(arguments),
        default=default,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    return chosen


def _start(arguments: Sequence[str]) -> Train:
    """The recipe that the other flags change: from --preset or --recipe, which are therefore read first."""
    preset, recipe = _value(arguments, "--preset"), _value(arguments, "--recipe")
    if preset and recipe:
        raise UsageError("--preset and --recipe both say where to start from; leave one away")
    if preset and preset not in PRESETS:
        raise UsageError(f"--preset {preset!r} is not known: {did_you_mean(preset, PRESETS)}")
    start = read_recipe(recipe) if recipe else PRESETS[preset or "quick"]
    return Train(**{field.name: getattr(start, field.name) for field in dataclasses.fields(start)})


def _value(arguments: Sequence[str], flag: str) -> str:
    for i, argument in enumerate(arguments):
        if argument == flag and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(flag + "="):
            return argument.removeprefix(flag + "=")
    return ""

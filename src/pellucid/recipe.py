"""A recipe: everything that decides a training run, as small frozen dataclasses that read and write as JSON.

The help text of each command-line flag is the text below its field here, and the flag's name is the field's. Two runs
with equal recipes on one machine give the same network, to the byte.
"""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pellucid.errors import UsageError, did_you_mean
from pellucid.files import read_json

Augmentation = Literal[
    "shift", "flip", "crop", "rotate", "trivial", "colour", "blur", "noise", "cutout", "mixup", "cutmix"
]
Balance = Literal["none", "weights"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Layout = Literal["auto", "nchw", "nhwc"]
Loss = Literal["cross-entropy", "mse", "focal", "custom"]
Monitor = Literal["val_loss", "val_accuracy", "val_auc"]
Optimizer = Literal["sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "adamw"]
Precision = Literal["auto", "float64", "float32", "bfloat16"]
Resize = Literal["crop", "stretch", "pad"]
Schedule = Literal["constant", "step", "exponential", "cosine", "warmup-cosine", "onecycle", "plateau"]

#: The networks known by name; anything with an arrow in it is the notation of `pellucid.nets.parse`.
NETWORKS = (
    "quick", "lenet5", "cifar-cnn", "perceptron", "mlp",
    "vgg11", "vgg13", "vgg16", "vgg19", "vgg11-bn", "vgg13-bn", "vgg16-bn", "vgg19-bn",
    "googlenet", "googlenet-paper",
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet20", "resnet32", "resnet56",
    "rnn", "lstm",
)  # fmt: skip

#: Where to start with each optimiser. The adaptive ones divide by the gradient's own size, hence their smaller rates.
LEARNING_RATES: dict[Optimizer, float] = {
    "sgd": 0.1,
    "momentum": 0.05,
    "nesterov": 0.05,
    "adagrad": 0.01,
    "adadelta": 1.0,
    "rmsprop": 0.001,
    "adam": 0.001,
    "adamw": 0.002,
}


class Stage(NamedTuple):
    """One optimiser, and the share of the run at which it begins."""

    optimizer: Optimizer
    begins: float


#: Networks so deep and plain that the usual rates throw them off in their first steps.
PLAIN = ("vgg", "googlenet-paper")


def _whole(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} {value}: expected a whole number from {low} to {high}")


def _between(
    name: str, value: float, low: float, high: float, *, low_open: bool = False, high_open: bool = False
) -> None:
    inside = (low < value if low_open else low <= value) and (value < high if high_open else value <= high)
    if not inside:
        left, right = "above" if low_open else "from", "below" if high_open else "up to"
        raise UsageError(f"{name} {value:g}: expected a number {left} {low:g} and {right} {high:g}")


@dataclass(frozen=True, slots=True)
class Pictures:
    """What the network is shown."""

    size: int | None = None
    """Side, in pixels, of the square each picture becomes. Chosen from the pictures and the network unless given."""
    resize: Resize | None = None
    """How a picture becomes a square: crop its middle, stretch it, or pad it. Crop, unless the data says otherwise."""
    augment: tuple[Augmentation, ...] | None = None
    """Random changes to training pictures: flip (left-right), shift (by up to a sixteenth), others as
    docs/augmentation.md tells. Chosen by the data unless given; nothing after the flag means none."""
    sample: float = 1.0
    """Train on this share of the pictures, the same share of every class."""
    val: float = 0.1
    """Share of the training pictures held out for validation, when the data has no validation split of its own."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.size is not None:
            _whole("--size", self.size, 1, 4096)
        _between("--sample", self.sample, 0, 1, low_open=True)
        _between("--val", self.val, 0, 1, low_open=True, high_open=True)


@dataclass(frozen=True, slots=True)
class Optimisation:
    """How the weights are found."""

    epochs: int | None = None
    """How many times every training picture is seen. 10 unless given, and more where pictures are few."""
    batch_size: int | Literal["all"] | None = None
    """Pictures a step, or all of them. 128 unless given, and fewer where pictures are few."""
    optimizer: str = "nesterov"
    """The rule of a step: sgd, momentum, nesterov, adagrad, adadelta, rmsprop, adam, adamw; or one first and another
    from a share of the run on, as adam+sgd@0.6."""
    lr: float | None = None
    """Learning rate (the highest one, where the schedule varies it). The optimiser's usual one unless given."""
    schedule: Schedule = "onecycle"
    """How the learning rate goes over the run; plateau divides it by ten when the monitored figure stands still."""
    loss: Loss = "cross-entropy"
    """What is made small; custom is a function of your own, given to pellucid.train(loss=...)."""
    balance: Balance = "none"
    """weights: an error in a rare class counts for more, in inverse proportion to the pictures of each class."""
    monitor: Monitor = "val_accuracy"
    """The figure that says which epoch is best; it also drives plateau and early stopping."""
    patience: int | None = None
    """Stop when the monitored figure has not improved for so many epochs. Never, unless given."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for flag, value in (
            ("--epochs", self.epochs),
            ("--batch-size", self.batch_size),
            ("--patience", self.patience),
        ):
            if isinstance(value, int):
                _whole(flag, value, 1, 1_000_000)
        usual = LEARNING_RATES[self.stages[0].optimizer]
        if self.lr is not None and not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(
                f"--lr {self.lr:g}: a learning rate is above 0; a usual one for {self.stages[0].optimizer} is {usual}"
            )
        if self.balance != "none" and self.loss in {"mse", "custom"}:
            raise UsageError(f"--balance {self.balance} weighs cross-entropy or focal, not --loss {self.loss}")

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The optimisers of the run, one after the other.

        Raises UsageError for an unknown name or a share that is none.
        """
        first, plus, rest = self.optimizer.partition("+")
        if not plus:
            return (Stage(_optimizer(first), 0.0),)
        second, _, share = rest.partition("@")
        try:
            begins = float(share)
        except ValueError:
            begins = math.nan
        if not 0 < begins < 1:
            raise UsageError(
                f"--optimizer {self.optimizer!r}: after @ stands the share of the run at which the second optimiser "
                "takes over, between 0 and 1, as in adam+sgd@0.6"
            )
        return Stage(_optimizer(first), 0.0), Stage(_optimizer(second), begins)

    @property
    def rate(self) -> float:
        """The learning rate given, else the (first) optimiser's usual one."""
        return LEARNING_RATES[self.stages[0].optimizer] if self.lr is None else self.lr


@dataclass(frozen=True, slots=True)
class Regularisation:
    """What keeps the network from learning its pictures by heart."""

    weight_decay: float = 5e-4
    """Pull of the weights towards zero in proportion to their size (L2); not on biases and normalisation."""
    l1: float = 0.0
    """Pull of the weights towards zero by the same amount each (L1); not on biases and normalisation."""
    label_smoothing: float = 0.0
    """Share of each target spread over all classes (cross-entropy only)."""
    clip_norm: float | None = None
    """Shorten the gradient of all weights together to this length, where it is longer."""
    clip_value: float | None = None
    """Cut every number of the gradient to this size."""
    ema: float | None = None
    """Keep, beside the weights, their running average with this decay (0.99, say), and evaluate and keep that."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        _between("--weight-decay", self.weight_decay, 0, 1)
        _between("--l1", self.l1, 0, 1)
        _between("--label-smoothing", self.label_smoothing, 0, 1, high_open=True)
        if self.ema is not None:
            _between("--ema", self.ema, 0, 1, low_open=True, high_open=True)
        for flag, value in (("--clip-norm", self.clip_norm), ("--clip-value", self.clip_value)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"{flag} {value:g}: expected a number above 0, such as 1")


def _optimizer(name: str) -> Optimizer:
    for known in get_args(Optimizer):
        if name == known:
            return typing.cast("Optimizer", known)
    raise UsageError(f"--optimizer {name!r} is not known: {did_you_mean(name, get_args(Optimizer))}")


def usual_rate(recipe: Recipe) -> float:
    """The learning rate given, else the (first) optimiser's usual one; a tenth of it for deep plain networks."""
    plain = recipe.optimisation.lr is None and recipe.net.startswith(PLAIN)
    return recipe.optimisation.rate * (0.1 if plain else 1.0)


def usual_epochs(pictures: int) -> int:
    """Epochs for so many training pictures: some ten thousand looks, within 10 to 40 epochs."""
    return min(40, max(10, math.ceil(10_000 / pictures)))


def usual_batch_size(pictures: int) -> int:
    """Pictures a step for so many training pictures: 128, but about ten steps an epoch where there are few."""
    return min(128, max(16, 1 << int(math.log2(max(1, pictures / 10)))))


@dataclass(frozen=True, slots=True)
class Engine:
    """How the numbers are computed. Touches speed and the last bits of the result; measured unless given."""

    precision: Precision = "auto"
    """Arithmetic of the training step. bfloat16 keeps the weights in float32. Evaluation is never below float32."""
    layout: Layout = "auto"
    """Order of the numbers in memory: nchw, or nhwc (channels last)."""
    device: Device = "auto"
    """Where: the processor, or a GPU (auto takes a CUDA one if there is one)."""
    threads: int = 0
    """Processor threads of a training step; 0 means measured."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        _whole("--threads", self.threads, 0, 1024)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a training run."""

    data: str = ""
    """Where the pictures are."""
    net: str = "quick"
    """A network's name, or its layers: 'INPUT -> [[CONV(32)]*2 -> POOL]*2 -> FC(512) -> FC(10)'."""
    pictures: Pictures = field(default_factory=Pictures)
    optimisation: Optimisation = field(default_factory=Optimisation)
    regularisation: Regularisation = field(default_factory=Regularisation)
    engine: Engine = field(default_factory=Engine)
    seed: int = 0
    """Decides everything random: the split, the first weights, the order, the augmentation, the dropout."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        _whole("--seed", self.seed, 0, 2**32 - 1)
        if self.regularisation.label_smoothing and self.optimisation.loss != "cross-entropy":
            raise UsageError(
                f"--label-smoothing goes with --loss cross-entropy, not {self.optimisation.loss}: leave one away"
            )
        # Options in parentheses, and the notation, are the networks' own to understand.
        name = self.net.partition("(")[0].strip()
        if "->" not in self.net and name not in NETWORKS and self.net != "custom":
            raise UsageError(
                f"--net {self.net!r} is no network Pellucid knows: {did_you_mean(name, NETWORKS)} "
                "Or write its layers: 'INPUT -> CONV(32) -> POOL -> FC(10)'"
            )

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: object, place: str = "recipe") -> Recipe:
        """Read what `to_json` wrote; `place` names the file in messages.

        Raises UsageError for an unknown key or a value of the wrong type.
        """
        recipe: Recipe = _from_json(cls, values, place)
        return recipe


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """A recipe from a JSON file; a run's `recipe.json` has its measurements beside it, which are passed over.

    Raises DataError for a file that cannot be read, UsageError for settings that make no sense.
    """
    values = read_json(path)
    if isinstance(values, dict):
        values.pop("measured", None)
    return Recipe.from_json(values, os.fspath(path))


#: Recipes by name, each a change to the defaults above; `--preset` starts from one.
PRESETS: dict[str, Recipe] = {
    "quick": Recipe(),
    "keras-cifar": Recipe(
        net="cifar-cnn",
        pictures=Pictures(augment=()),
        optimisation=Optimisation(epochs=5, batch_size=32, optimizer="rmsprop", lr=0.001, schedule="constant"),
        regularisation=Regularisation(weight_decay=0.0),
    ),
}


def settle(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with flat settings changed, whichever dataclass each lives in: `settle(recipe, lr=0.1, size=64)`.

    Raises UsageError for a setting no dataclass has.
    """
    parts: dict[str, Any] = {}
    top: dict[str, Any] = {}
    for name, value in changes.items():
        home = _HOMES.get(name)
        if home is None:
            raise UsageError(f"{name!r} is no setting of a recipe: {did_you_mean(name, _HOMES)}")
        if home == "":
            top[name] = value
        else:
            parts.setdefault(home, {})[name] = value
    for home, values in parts.items():
        top[home] = dataclasses.replace(getattr(recipe, home), **values)
    # Through JSON, so that a wrong type is refused here as it is in a file.
    return Recipe.from_json(dataclasses.replace(recipe, **top).to_json(), "setting")


def _homes() -> dict[str, str]:
    homes = {}
    for outer in dataclasses.fields(Recipe):
        if outer.default_factory is not dataclasses.MISSING:
            homes.update({inner.name: outer.name for inner in dataclasses.fields(outer.default_factory())})
        else:
            homes[outer.name] = ""
    return homes


_HOMES = _homes()


def _from_json(cls: type[Any], values: object, place: str) -> Any:
    if not isinstance(values, dict):
        raise UsageError(f"{place}: expected an object with {cls.__name__.lower()} settings, found {values!r:.60}")
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    for key in values:
        if key not in known:
            raise UsageError(f"{place}: {key!r} is no setting here: {did_you_mean(str(key), sorted(known))}")
    return cls(**{key: _value(hints[key], value, f"{place}: {key}") for key, value in values.items()})


def _value(kind: Any, value: object, place: str) -> Any:
    """`value` as `kind`, which is one of the few types that recipes are made of."""
    if dataclasses.is_dataclass(kind):
        cls = typing.cast("type[Any]", kind)
        return value if isinstance(value, cls) else _from_json(cls, value, place)
    if get_origin(kind) in (types.UnionType, typing.Union):
        kinds = [k for k in get_args(kind) if k is not type(None)]
        if value is None and len(kinds) < len(get_args(kind)):
            return None
        # A word is looked for among the words, if there are any, so that the message names them.
        words = [k for k in kinds if get_origin(k) is Literal]
        return _value(words[0] if words and isinstance(value, str) else kinds[0], value, place)
    if get_origin(kind) is tuple and isinstance(value, (list, tuple)):
        return tuple(_value(get_args(kind)[0], item, place) for item in value)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UsageError(f"{place}: {value!r} is not among its choices: {did_you_mean(str(value), get_args(kind))}")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    raise UsageError(f"{place}: expected {getattr(kind, '__name__', kind)}, found {value!r:.60}")

"""What decides a training run. A flag of the command is a field here, and its help is the text below the field."""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from pellucid.errors import UsageError, did_you_mean
from pellucid.recipe.plain import from_plain

Augmentation = Literal[
    "shift", "flip", "crop", "rotate", "trivial", "colour", "blur", "noise", "cutout", "mixup", "cutmix"
]
Balance = Literal["none", "weights", "sample"]
Device = Literal["auto", "cpu", "cuda", "mps"]
HeadKind = Literal["svm", "tree", "forest", "knn"]
Layout = Literal["auto", "nchw", "nhwc"]
Loss = Literal["cross-entropy", "mse", "focal", "custom"]
Monitor = Literal["val_loss", "val_accuracy", "val_auc"]
Normalise = Literal["data", "unit"]
Optimizer = Literal["sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "adamw", "muon"]
Precision = Literal["auto", "float64", "float32", "bfloat16"]
Resize = Literal["crop", "stretch", "pad"]
Schedule = Literal["constant", "step", "tenths", "exponential", "cosine", "warmup-cosine", "onecycle", "plateau"]

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
    "muon": 0.02,
}


class Stage(NamedTuple):
    """One optimiser, and the share of the run at which it begins."""

    optimizer: Optimizer
    begins: float


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
    """Side of the square shown, in pixels."""
    resize: Resize | None = None
    """How it becomes a square."""
    augment: tuple[Augmentation, ...] | None = None
    """Random changes (docs/augmentation.md), by the data unless given; nothing after the flag: none."""
    normalise: Normalise = "data"
    """Mean 0, sd 1 (data), or 0 to 1."""
    sample: float = 1.0
    """Train on this share of every class."""
    val: float = 0.1
    """Share held out where there is no val."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.size is not None:
            _whole("--size", self.size, 1, 4096)
        _between("--sample", self.sample, 0, 1, low_open=True)
        _between("--val", self.val, 0, 1, low_open=True, high_open=True)


@dataclass(frozen=True, slots=True)
class Optimisation:
    """How the weights are found."""

    init: str | None = None
    """First weights: torch, uniform(0.1), truncated-normal(0.05), xavier, he, orthogonal."""
    epochs: int | None = None
    """10, or more where pictures are few."""
    budget: float | None = None
    """Or seconds to train in."""
    batch_size: int | Literal["all"] | None = None
    """128, or fewer where pictures are few."""
    optimizer: str = "nesterov"
    """sgd, momentum, nesterov, adagrad, adadelta, rmsprop, adam, adamw, muon; or two: adam+sgd@0.6."""
    lr: float | Literal["find"] | None = None
    """The highest rate; find: by a sweep."""
    bias_rate: float | None = None
    """Of normalisations, times lr."""
    lr_decay_by_depth: float | None = None
    """Rate of each layer or block, of that above it: 0.8, say."""
    schedule: str = "onecycle"
    """constant, step (or step@5: halved every 5 epochs), tenths, exponential, cosine, warmup-cosine,
    onecycle, plateau."""
    loss: Loss = "cross-entropy"
    """custom: of pellucid.train(loss=...)."""
    balance: Balance = "none"
    """A rare class counts for more (weights), or is drawn as often as any (sample)."""
    monitor: Monitor = "val_accuracy"
    """Says which epoch is best; drives plateau and --patience."""
    patience: int | None = None
    """Epochs without gain before it stops."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for flag, value in (
            ("--epochs", self.epochs),
            ("--batch-size", self.batch_size),
            ("--patience", self.patience),
        ):
            if isinstance(value, int):
                _whole(flag, value, 1, 1_000_000)
        usual, _ = LEARNING_RATES[self.stages[0].optimizer], self.halving
        if isinstance(self.lr, (int, float)) and not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(
                f"--lr {self.lr:g}: a learning rate is above 0; a usual one for {self.stages[0].optimizer} is {usual}"
            )
        if self.budget is not None:
            if not (math.isfinite(self.budget) and self.budget > 0):
                raise UsageError(f"--budget {self.budget:g}: expected seconds above 0, such as 30")
            if self.epochs is not None:
                raise UsageError(
                    f"--budget {self.budget:g} and --epochs {self.epochs} both say how long to train: leave one away"
                )
        if self.bias_rate is not None and not (math.isfinite(self.bias_rate) and self.bias_rate > 0):
            raise UsageError(f"--bias-rate {self.bias_rate:g}: expected a number above 0, such as 16")
        if self.lr_decay_by_depth is not None:
            _between("--lr-decay-by-depth", self.lr_decay_by_depth, 0, 1, low_open=True)
        if self.balance == "weights" and self.loss in {"mse", "custom"}:
            raise UsageError(
                f"--balance weights weighs cross-entropy or focal, not --loss {self.loss}; --balance sample goes with "
                "any loss"
            )

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
        return self.lr if isinstance(self.lr, (int, float)) else LEARNING_RATES[self.stages[0].optimizer]

    @property
    def shape(self) -> Schedule:
        """The schedule's name, without its epochs.

        Raises UsageError for an unknown one.
        """
        name = self.schedule.partition("@")[0]
        for known in get_args(Schedule):
            if name == known:
                return typing.cast("Schedule", known)
        raise UsageError(f"--schedule {self.schedule!r} is not known: {did_you_mean(name, get_args(Schedule))}")

    @property
    def halving(self) -> int | None:
        """The epochs after which `step@5` halves the rate; None for a schedule that is not written like this.

        Raises UsageError where what follows @ is no number of epochs.
        """
        shape, (_, at, epochs) = self.shape, self.schedule.partition("@")
        if not at:
            return None
        if shape != "step" or not (epochs.isascii() and epochs.isdigit() and int(epochs) > 0):
            raise UsageError(
                f"--schedule {self.schedule!r}: @ stands behind step, with the epochs after which the rate is halved, "
                "as in step@5"
            )
        return int(epochs)


@dataclass(frozen=True, slots=True)
class Regularisation:
    """What keeps the network from learning its pictures by heart."""

    weight_decay: float = 5e-4
    """L2, on filters and matrices."""
    l1: float = 0.0
    """L1, likewise."""
    label_smoothing: float = 0.0
    """Share of each target spread over all."""
    clip_norm: float | None = None
    """Shorten the gradient of all weights to this length."""
    clip_value: float | None = None
    """Cut each number of it to this size."""
    teacher: str | None = None
    """A run whose answers are learnt, too."""
    ema: float | None = None
    """Running average of the weights: 0.99."""

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


@dataclass(frozen=True, slots=True)
class Engine:
    """How the numbers are computed; measured unless given."""

    precision: Precision = "auto"
    """bfloat16 keeps weights in float32."""
    layout: Layout = "auto"
    """nhwc: channels last."""
    device: Device = "auto"
    """auto: a CUDA GPU if there is one."""
    threads: int = 0
    """Of a training step; 0: measured."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        _whole("--threads", self.threads, 0, 1024)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a training run."""

    data: str = ""
    """Where the pictures are."""
    net: str = "quick"
    """A name, or layers: 'INPUT -> [CONV(32) -> POOL]*2 -> FC(10)'."""
    weights: str | None = None
    """Begin with trained ones: a RUN, a .safetensors or .pth file, hf:owner/name."""
    freeze: int | Literal["head"] | None = None
    """Layers held still; head: all but it."""
    head: str | None = None
    """svm, tree, forest or knn on top; with --weights, instead of training."""
    pictures: Pictures = field(default_factory=Pictures)
    optimisation: Optimisation = field(default_factory=Optimisation)
    regularisation: Regularisation = field(default_factory=Regularisation)
    engine: Engine = field(default_factory=Engine)
    seed: int = 0
    """Decides everything random."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        _whole("--seed", self.seed, 0, 2**32 - 1)
        if self.regularisation.label_smoothing and self.optimisation.loss != "cross-entropy":
            raise UsageError(
                f"--label-smoothing goes with --loss cross-entropy, not {self.optimisation.loss}: leave one away"
            )
        if self.regularisation.teacher is not None and self.optimisation.loss != "cross-entropy":
            raise UsageError(f"--teacher goes with --loss cross-entropy, not {self.optimisation.loss}: leave one away")
        if isinstance(self.freeze, int):
            _whole("--freeze", self.freeze, 0, 10_000)
        self._refuse_heads()
        if self.weights is not None and self.optimisation.init is not None:
            raise UsageError(
                f"--init {self.optimisation.init} draws first weights, and --weights {self.weights} brings trained "
                "ones: leave one away"
            )
        # Options in parentheses, and the notation, are the networks' own to understand.
        name = self.net.partition("(")[0].strip()
        if "->" not in self.net and name not in NETWORKS and self.net != "custom":
            raise UsageError(
                f"--net {self.net!r} is no network Pellucid knows: {did_you_mean(name, NETWORKS)} "
                "Or write its layers: 'INPUT -> CONV(32) -> POOL -> FC(10)'"
            )

    @property
    def head_alone(self) -> bool:
        """Whether nothing is trained but a head on top, on the features of the weights as they are."""
        return self.head is not None and self.weights is not None

    def _refuse_heads(self) -> None:
        """An unknown head, and what no head can be trained with."""
        if self.head is None:
            return
        if self.head not in get_args(HeadKind):
            raise UsageError(f"--head {self.head!r} is not known: {did_you_mean(str(self.head), get_args(HeadKind))}")
        rules = self.optimisation
        if rules.balance != "none":
            raise UsageError(
                f"--balance {rules.balance} does not reach --head {self.head}, which is fitted on each training "
                "picture once: leave one away"
            )
        tuning: dict[str, object] = {"--freeze": self.freeze, "--lr-decay-by-depth": rules.lr_decay_by_depth}
        if self.head_alone:
            tuning |= {
                "--epochs": rules.epochs,
                "--budget": rules.budget,
                "--lr": rules.lr,
                "--patience": rules.patience,
            }
            tuning |= {"--teacher": self.regularisation.teacher}
        for flag, value in tuning.items():
            if value is not None:
                raise UsageError(
                    f"--head {self.head} passes no gradient on, so {flag} {value} has nothing to fine-tune: leave "
                    f"{flag} away, or fine-tune without --head first, and then train with --weights RUN --head "
                    f"{self.head}"
                )

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: object, place: str = "recipe") -> Recipe:
        """Read what `to_json` wrote; `place` names the file in messages.

        Raises UsageError for an unknown key or a value of the wrong type.
        """
        recipe: Recipe = from_plain(cls, values, place)
        return recipe

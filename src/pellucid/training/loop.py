"""The training loop: one object that holds a network in training, and takes it a step at a time.

It yields after every step and knows nothing of files, screens or signals; what watches it decides what to do between
two steps. Losses and counts are summed on the device and read only when somebody asks, so no step waits for a GPU.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from pellucid.data.batches import Batches
from pellucid.data.mix import Mixed, Target, hits, targets
from pellucid.data.preprocess import Preprocess
from pellucid.recipe import LEARNING_RATES, Engine, Recipe, usual_epochs
from pellucid.training.distil import Teacher, distilled
from pellucid.training.finetune import frozen_modules
from pellucid.training.losses import Loss
from pellucid.training.optimise import decayed, learning_rate, make_optimizer, set_rate

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.float32}


def place(model: nn.Module, engine: Engine, device: torch.device) -> nn.Module:
    """The model, in place, on its device and in the number format and memory layout that the engine asks for."""
    memory_format = torch.channels_last if engine.layout == "nhwc" else torch.contiguous_format
    # Parameters stay float32 under bfloat16: an update is often smaller than bfloat16's last bit of the weight.
    return model.to(device=device, dtype=DTYPES[engine.precision], memory_format=memory_format)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class Forward:
    """How a batch of uint8 pictures becomes logits in training, in one engine's arithmetic and layout."""

    model: nn.Module
    preprocess: Preprocess
    engine: Engine

    def __call__(self, x_nhwc: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits (N, classes), float32 or float64, of uint8 pictures (N, H, W, C); and those of auxiliary heads.

        A network with auxiliary heads (GoogLeNet) has a method `forward_with_auxiliary`, used in training alone.
        """
        x_nchw = self.preprocess.normalise(x_nhwc, DTYPES[self.engine.precision])
        if self.engine.layout == "nchw":
            # Through one flat view, since with one channel the NHWC strides count as contiguous too, and torch would
            # take them for channels last all the way through the network.
            x_nchw = x_nchw.contiguous().view(-1).view(x_nchw.shape)
        with self._arithmetic(x_nhwc.device.type):
            with_auxiliary = getattr(self.model, "forward_with_auxiliary", None)
            logits_nk, auxiliary = (self.model(x_nchw), []) if with_auxiliary is None else with_auxiliary(x_nchw)
        if self.engine.precision == "bfloat16":
            return logits_nk.float(), [logits.float() for logits in auxiliary]
        return logits_nk, auxiliary

    def _arithmetic(self, device: str) -> AbstractContextManager[object]:
        if self.engine.precision != "bfloat16":
            return nullcontext()
        return torch.autocast(device, torch.bfloat16)


class NotFiniteError(Exception):
    """The loss of a step is no number. Raised before that step has changed anything."""

    def __init__(self, x_nhwc: torch.Tensor, target: Target) -> None:
        super().__init__("the loss is no number")
        self.x_nhwc, self.target = x_nhwc, target


class Training:
    """A network being trained: its optimiser, its place in the run, and this epoch's sums."""

    def __init__(
        self, model: nn.Module, batches: Batches, recipe: Recipe, loss: Loss, teacher: Teacher | None = None
    ) -> None:
        self.model = model
        self.batches = batches
        self.recipe = recipe
        self.forward = Forward(model, batches.preprocess, recipe.engine)
        self.loss = loss
        self.teacher = teacher
        self.epochs = recipe.optimisation.epochs or usual_epochs(len(batches.labels_n))
        self.step = 0
        self.lowered = 1.0
        """What plateau has multiplied the learning rate by."""
        self.stage = 0
        self.strict = False
        """Whether every loss is looked at before its step; where a device works on its own, that makes it wait."""
        self.still = frozen_modules(model) if recipe.freeze is not None else []
        """Normalisations whose statistics do not move."""
        self.optimizer = self._stage_optimizer()
        self.average = None if recipe.regularisation.ema is None else copy.deepcopy(model).requires_grad_(False)
        device = batches.device
        wide = torch.float32 if device.type == "mps" else torch.float64
        self.loss_sum = torch.zeros((), device=device, dtype=wide)
        self.correct = torch.zeros((), device=device, dtype=wide)
        self.seen = 0

    @property
    def steps(self) -> int:
        """Steps in the whole run."""
        return self.epochs * len(self.batches)

    @property
    def epoch(self) -> int:
        """The epoch that the next step belongs to, from 0."""
        return self.step // len(self.batches)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        optimisation = self.recipe.optimisation
        peak = optimisation.rate if self.stage == 0 else LEARNING_RATES[optimisation.stages[self.stage].optimizer]
        halving = None if optimisation.halving is None else optimisation.halving * len(self.batches)
        return self.lowered * learning_rate(optimisation.shape, peak, self.step, self.steps, halving)

    @property
    def kept(self) -> nn.Module:
        """The network to evaluate and to keep: the average, where one is made, else the one in training."""
        return self.model if self.average is None else self.average

    def run_epoch(self) -> Iterator[int]:
        """Take the steps left in this epoch; yields the number of pictures after each."""
        first = self.step % len(self.batches)
        if first == 0:
            self._start_sums()
        self.to_training_mode()
        for x_nhwc, target in self.batches.epoch(self.epoch, first):
            self.take_step(x_nhwc, target)
            yield len(x_nhwc)

    def to_training_mode(self) -> None:
        """The network in training mode, but for frozen normalisations."""
        self.model.train()
        for module in self.still:
            module.eval()

    def take_step(self, x_nhwc: torch.Tensor, target: Target) -> None:
        """Forward, backward, update. Where the training is `strict`, raises NotFiniteError for a loss that is none."""
        self.seed_step()
        self.enter_stage(self.step)
        set_rate(self.optimizer, self.rate)
        logits_nk, auxiliary = self.forward(x_nhwc)
        labels = targets(target, logits_nk.shape[1], logits_nk.dtype) if isinstance(target, Mixed) else target
        loss = self.loss(logits_nk, labels)
        if self.strict and not math.isfinite(loss.item()):
            raise NotFiniteError(x_nhwc, target)
        whole = loss if self.teacher is None else distilled(loss, logits_nk, self.teacher(x_nhwc))
        for logits in auxiliary:
            # The heads on the way pull too; the loss shown stays that of the network's answer.
            whole = whole + float(self.model.auxiliary_loss_weight) * self.loss(logits, labels)  # type: ignore[arg-type]
        self.optimizer.zero_grad()
        whole.backward()  # type: ignore[no-untyped-call]
        self._regularise_gradient()
        self.optimizer.step()
        self._update_average()
        self.step += 1
        self.seen += len(x_nhwc)
        self.loss_sum += loss.detach() * len(x_nhwc)
        self.correct += hits(logits_nk.detach(), target).sum()

    def seed_step(self) -> None:
        """Seed torch for the next step: dropout's masks follow from seed and step, so a resumed run draws the same."""
        seed = (self.batches.seed << 32) + self.step
        if self.loss_sum.device.type == "cpu":
            # torch.manual_seed sees to every device there might be, which takes as long as a small layer.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def enter_stage(self, step: int) -> None:
        """Take up the optimiser that this step belongs to; a new one starts without memory."""
        later = self.recipe.optimisation.stages[1:]
        due = sum(step >= stage.begins * self.steps for stage in later)
        if due != self.stage:
            self.stage = due
            self.optimizer = self._stage_optimizer()

    def _stage_optimizer(self) -> torch.optim.Optimizer:
        name = self.recipe.optimisation.stages[self.stage].optimizer
        decay, rules = self.recipe.regularisation.weight_decay, self.recipe.optimisation
        bias_rate = rules.bias_rate or 1.0
        return make_optimizer(self.model, name, self.rate, decay, rules.lr_decay_by_depth, bias_rate)

    def _regularise_gradient(self) -> None:
        rules = self.recipe.regularisation
        if rules.l1:
            for parameter in decayed(self.model):
                if parameter.grad is not None:
                    # The slope of λ·|w|. Added here it costs no graph; the loss shown is the data's alone.
                    parameter.grad.add_(parameter.detach().sign(), alpha=rules.l1)
        if rules.clip_value is not None:
            nn.utils.clip_grad_value_(self.model.parameters(), rules.clip_value)
        if rules.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), rules.clip_norm)

    def _update_average(self) -> None:
        decay = self.recipe.regularisation.ema
        if self.average is None or decay is None:
            return
        # The exponentially weighted average with its bias taken out, as one step: nothing is left of the random start.
        share = (1 - decay) / (1 - decay ** (self.step + 1))
        with torch.no_grad():
            for average, now in zip(self.average.parameters(), self.model.parameters(), strict=True):
                average.lerp_(now, share)
            for kept, buffer in zip(self.average.buffers(), self.model.buffers(), strict=True):
                kept.copy_(buffer)

    def _start_sums(self) -> None:
        self.loss_sum.zero_()
        self.correct.zero_()
        self.seen = 0

    def sums(self) -> tuple[float, float]:
        """Mean loss and accuracy over this epoch's training batches so far.

        A mixture of two pictures counts as right by the share of the one that is named.
        """
        return float(self.loss_sum) / max(1, self.seen), float(self.correct) / max(1, self.seen)

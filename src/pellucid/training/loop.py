"""The training loop: one object that holds a network in training, and takes it a step at a time.

It yields after every step and knows nothing of files, screens or signals; what watches it decides what to do between
two steps. Losses and counts are summed on the device and read only when somebody asks, so no step waits for a GPU.

Of several processes each takes its shard of every batch. Torch's DistributedDataParallel adds up their gradients, so
that all take the step of the whole batch's mean loss.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from torch import nn

from pellucid.data.ahead import ahead
from pellucid.data.batches import Batches, pieces
from pellucid.data.memory import out_of_memory
from pellucid.data.mix import Mixed, Target, hits, mixes, part_of, targets
from pellucid.errors import PellucidError
from pellucid.recipe import LEARNING_RATES, Engine, Recipe, usual_epochs
from pellucid.training import processes
from pellucid.training.clock import Clock
from pellucid.training.distil import Teacher, distilled
from pellucid.training.finetune import frozen_modules
from pellucid.training.forward import DTYPES, Answers, Forward, averaged
from pellucid.training.losses import Loss, mass
from pellucid.training.machine import own_cores
from pellucid.training.memory import NoRoomError, Statistics, Whole, enough, give_back, most_parts, no_room, sentence
from pellucid.training.optimise import decayed, learning_rate, make_optimizer, set_rate


def place(model: nn.Module, engine: Engine, device: torch.device) -> nn.Module:
    """The model, in place, on its device and in the number format and memory layout that the engine asks for."""
    memory_format = torch.channels_last if engine.layout == "nhwc" else torch.contiguous_format
    # Parameters stay float32 under bfloat16: an update is often smaller than bfloat16's last bit of the weight.
    return model.to(device=device, dtype=DTYPES[engine.precision], memory_format=memory_format)  # type: ignore[call-overload, no-any-return]


class NotFiniteError(Exception):
    """The loss of a step is no number. Raised before that step has changed anything."""


class Training:
    """A network being trained: its optimiser, its place in the run, and this epoch's sums."""

    def __init__(
        self, model: nn.Module, batches: Batches, recipe: Recipe, loss: Loss, teacher: Teacher | None = None
    ) -> None:
        self.model = model
        self.batches = batches
        self.recipe = recipe
        trained = any(parameter.requires_grad for parameter in model.parameters())
        self.shared = (
            averaged(model, batches.device, whole=recipe.net != "custom") if batches.shard.of > 1 and trained else None
        )
        """Where several processes train together, what adds up their gradients."""
        self.forward = Forward(self.shared or Answers(model), batches.preprocess, recipe.engine)
        self.loss = loss
        self.teacher = teacher
        self.epochs = recipe.optimisation.epochs or usual_epochs(len(batches.labels_n))
        self.step = 0
        self.lowered = 1.0
        """What plateau has multiplied the learning rate by."""
        self.stage = 0
        self.clock: Clock | None = None
        """What takes the time of each part of a step, where somebody asks."""
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
        self.parts = 1
        """In how many parts a batch is taken, as memory has had no room for it; doubled when it runs out."""
        self.divisible = True
        """Whether it may be."""
        self.wish: Callable[[], bool] = bool
        """Asked after each step: whether somebody here wants the run to stop."""
        self._wished = False
        self._statistics = Statistics(model)
        self._rehearsals, self._proven = 2, 0

    @property
    def stopping(self) -> bool:
        """Whether the run is to stop; of several processes, whether any of them was asked to before its last step."""
        return self.wish() if self.shared is None else self._wished

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
        """Take the steps left in this epoch; yields the number of pictures after each, of all processes together."""
        first = self.step % len(self.batches)
        if first == 0:
            self._start_sums()
        self.to_training_mode()
        with self.clock or nullcontext():
            yield from self._steps(first)

    def _steps(self, first: int) -> Iterator[int]:
        if self.shared is None:
            for x_nhwc, target in self._drawn(first):
                self.take_step(x_nhwc, target)
                yield len(x_nhwc)
                self._mark("between")
            return
        wholes = self.batches.labels(self.epoch, first)
        mixed = mixes(self.batches.augment)
        for (x_nhwc, target), labels_n in zip(self._drawn(first), wholes, strict=True):
            self.take_step(x_nhwc, target, Whole.of(self.loss, labels_n, mixed=mixed))
            yield len(labels_n)
            self._mark("between")

    def _mark(self, part: str) -> None:
        if self.clock is not None:
            self.clock.mark(part)

    def _drawn(self, first: int) -> Iterator[tuple[torch.Tensor, Target]]:
        """The batches left in this epoch."""
        drawn = self.batches.epoch(self.epoch, first)
        if self._hands_free():
            drawn = ahead(drawn)
        while True:
            with enough("a batch of pictures: end what else runs on this machine, or take a smaller --batch-size"):
                step = next(drawn, None)
            if step is None:
                return
            self._mark("data")
            yield step

    def _hands_free(self) -> bool:
        """Whether something of this machine can make the next batch while a step is computed.

        Where every core computes, a step that shares one of them takes 15 % longer. While a GPU works, Python goes on
        to the next batch anyway. What is fetched from a disk is waited for in either case.
        """
        if not isinstance(self.batches.pixels_nhwc, torch.Tensor):
            return True
        return self.batches.device.type == "cpu" and self.recipe.engine.threads < own_cores()

    def to_training_mode(self) -> None:
        """The network in training mode, but for frozen normalisations."""
        self.model.train()
        for module in self.still:
            module.eval()

    def take_step(self, x_nhwc: torch.Tensor, target: Target, whole: Whole | None = None) -> None:
        """Forward, backward, update. `whole` is the batch that several processes share, and these pictures are of.

        Raises NoRoomError where memory has no room for the step, in however many parts; and, where the training is
        `strict`, NotFiniteError for a loss that is none, in every process.
        """
        self.enter_stage(self.step)
        set_rate(self.optimizer, self.rate)
        if whole is not None:
            self._rehearse(x_nhwc, target, whole)
        while (found := self._gradient(x_nhwc, target, whole)) is None:
            self._divide(len(x_nhwc), whole)
        loss, right = found if self.shared is None else self._of_all(*found)
        self._mark("waiting")
        if self.strict and not math.isfinite(loss.item()):
            self._statistics.put_back()
            raise NotFiniteError
        self._regularise_gradient()
        with enough("the optimiser's own numbers: end what else runs on this machine, or take --optimizer sgd"):
            self.optimizer.step()
        self._update_average()
        self._mark("optimiser")
        self.step += 1
        pictures = len(x_nhwc) if whole is None else whole.pictures
        self.seen += pictures
        self.loss_sum += loss * pictures
        self.correct += right

    def _gradient(
        self, x_nhwc: torch.Tensor, target: Target, whole: Whole | None, *, alone: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Leave the gradient of the whole batch's mean loss in the parameters.

        Returns what these pictures have of that loss, and the sum of their hits; None where memory ran out, and all is
        as before. With `alone`, nothing goes to or comes from other processes.
        """
        self.seed_step()
        self._statistics.keep()
        self.optimizer.zero_grad()
        try:
            return self._accumulate(x_nhwc, target, whole, alone=alone)
        except (RuntimeError, MemoryError) as error:
            if processes.lost(error):
                raise PellucidError(processes.GONE) from error
            if not out_of_memory(error):
                raise
        # Not before here is the error gone, and with it what its frames hold.
        self._statistics.put_back()
        self.optimizer.zero_grad()
        give_back(x_nhwc.device)
        return None

    def _accumulate(
        self, x_nhwc: torch.Tensor, target: Target, whole: Whole | None, *, alone: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        parts = pieces(len(x_nhwc), min(self.parts, most_parts(self.model, len(x_nhwc))))
        if len(parts) > 1 and whole is None:
            labels_n = target.labels_n if isinstance(target, Mixed) else target
            whole = Whole.of(self.loss, labels_n, mixed=isinstance(target, Mixed))
        loss, right = torch.zeros_like(self.loss_sum), torch.zeros_like(self.correct)
        for part in parts:
            # What several processes have is added up once, behind the last part.
            silent = self.shared is not None and (alone or part is not parts[-1])
            with self.shared.no_sync() if silent and self.shared is not None else nullcontext():
                found = self._one_part(x_nhwc[part], part_of(target, part), whole)
            if len(parts) == 1:
                return found
            loss += found[0]
            right += found[1]
        return loss, right

    def _one_part(self, x_nhwc: torch.Tensor, target: Target, whole: Whole | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward and backward of pictures that fit: what they have of the batch's mean loss, and their hits."""
        logits_nk, auxiliary = self.forward(x_nhwc)
        labels = targets(target, logits_nk.shape[1], logits_nk.dtype) if isinstance(target, Mixed) else target
        loss, part = self.loss(logits_nk, labels), 1.0
        weight: float | torch.Tensor = 1.0
        if whole is not None:
            weight, part = mass(self.loss, labels) / whole.mass, len(x_nhwc) / whole.pictures
            loss = loss * weight
        pull = loss if self.teacher is None else distilled(loss, logits_nk, self.teacher(x_nhwc), part)
        for logits in auxiliary:
            # The heads on the way pull too; the loss shown stays that of the network's answer.
            pull = pull + float(self.model.auxiliary_loss_weight) * self.loss(logits, labels) * weight  # type: ignore[arg-type]
        self._mark("forward")
        # The processes' gradients are averaged, and their sum is wanted.
        (pull * self.batches.shard.of if self.shared is not None else pull).backward()  # type: ignore[no-untyped-call]
        self._mark("backward")
        return loss.detach(), hits(logits_nk.detach(), target).sum()

    def _divide(self, pictures: int, whole: Whole | None) -> None:
        """Take batches in twice as many parts from here on."""
        # Of several processes all must come to the same, so the smallest shard decides.
        pictures = pictures if whole is None else whole.pictures // self.batches.shard.of
        most = most_parts(self.model, pictures)
        if self.shared is not None and self._proven and not self.divisible:
            raise NoRoomError(
                f"memory ran out at step {self.step}, in a batch that had room before: end what else runs on this "
                "machine, and go on with --resume"
            )
        if self.parts >= most or not self.divisible:
            raise no_room(pictures // most, self.batches.preprocess.size)
        self.parts = min(2 * self.parts, most)

    def _rehearse(self, x_nhwc: torch.Tensor, target: Target, whole: Whole) -> None:
        """Find out in how many parts every process has room for its shard, before any of them waits for another.

        A process that ran out of memory while the others add up gradients would leave them waiting. What is rehearsed
        has no effect on what follows: nothing random, no statistics. Twice, since an optimiser takes its memory in the
        first step, and again for a larger batch.
        """
        if self._rehearsals == 0 and len(x_nhwc) <= self._proven:
            return
        assert self.shared is not None
        self.divisible = True
        while processes.any_of(self._gradient(x_nhwc, target, whole, alone=True) is None):
            self._statistics.put_back()
            self._divide(len(x_nhwc), whole)
        self._statistics.put_back()
        if self._proven == 0:
            # The first sum tells torch in which order gradients come; from then on it adds them up in that order,
            # which of three processes and more makes the last bits. A resumed run has to be in the same order.
            self._gradient(x_nhwc, target, whole)
            self._statistics.put_back()
        self._rehearsals, self._proven = max(0, self._rehearsals - 1), max(self._proven, len(x_nhwc))
        self.divisible = False

    def _of_all(self, loss: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and hits of the whole batch; and whether anybody wants to stop, which every process learns now."""
        asked = torch.tensor(float(self.wish()), dtype=torch.float64)
        here = torch.stack([loss.to(self.loss_sum.dtype), right.to(self.loss_sum.dtype)])
        if here.device.type == "cpu":
            sums = processes.total(torch.stack([*here, asked]))
            self._wished = bool(sums[2] > 0)
        else:
            # The hosts talk beside their devices: what is summed there is not waited for.
            sums = processes.total(here)
            self._wished = bool(processes.total(asked) > 0)
        return sums[0], sums[1]

    def align(self) -> None:
        """Give every process the running statistics of process 0, so that all evaluate the same network."""
        if self.shared is not None:
            processes.spread(self.model.buffers())
            processes.spread(() if self.average is None else self.average.buffers())

    def note(self) -> str | None:
        """What a reader should know of the batch being taken in parts; None where it is not."""
        if self.parts == 1:
            return None
        pictures = min(self.batches.batch_size, len(self.batches.labels_n)) // self.batches.shard.of
        return sentence(self.model, pictures, self.parts)

    def seed_step(self) -> None:
        """Seed torch for the next step: dropout's masks follow from seed and step, so a resumed run draws the same."""
        seed = _mixed((self.batches.seed << 32) + self.step, self.batches.shard.number)
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


def _mixed(seed: int, process: int) -> int:
    """A seed of a process's own; that of process 0 is the one of a process alone."""
    if process == 0:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed} {process}".encode(), digest_size=8).digest(), "big") >> 1

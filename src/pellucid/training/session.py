"""One run on its way: epochs, what is written after each, checkpoints in between, and what is left in the end."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pellucid.bundle.folder import fill, load, tensors
from pellucid.bundle.recogniser import Recogniser, infer
from pellucid.data.batches import order
from pellucid.data.images import Lazy, picked
from pellucid.data.load import Shown
from pellucid.data.mix import mixes
from pellucid.errors import DataError, PellucidError
from pellucid.files import append_line, make_folder, read_json, read_lines, write_json, write_tensors, write_text
from pellucid.scores import evaluation
from pellucid.training import processes
from pellucid.training.checkpoint import BEST, Arrays, forget_last, load_checkpoint, save_checkpoint
from pellucid.training.clock import Clock
from pellucid.training.events import Epoch, Event, Noted, Profiled, Progress, Run
from pellucid.training.inference import infer_together
from pellucid.training.interrupt import Interrupt
from pellucid.training.leave import leave
from pellucid.training.loop import NotFiniteError, Training
from pellucid.training.machine import computing, unsteady
from pellucid.training.monitor import best, lowered, waited
from pellucid.training.nonsense import BAD_STEP, BadStep, forward_fault, update_fault, weights_are_numbers
from pellucid.training.optimise import rate_of
from pellucid.training.peak import matrix_rate, step_flop
from pellucid.training.pictures import REPORT
from pellucid.training.prepare import Task
from pellucid.training.top import put_on_head

RESULT, METRICS, PROFILE = "result.json", "metrics.jsonl", "profile.json"

#: Training pictures that are also recognised unmixed after each epoch, where the batches mix them.
CLEAN = 1000

#: Seconds between two checkpoints unless asked otherwise, and the most of a run's time that writing them may take.
EVERY, COST = 30.0, 0.02


def finished(folder: Path, model: nn.Module | None, *, stopped: bool = False) -> Run | None:
    """The run in `folder`, if it came to its end; or, with `stopped`, if it was interrupted."""
    if not (folder / RESULT).is_file():
        return None
    result = read_json(folder / RESULT)
    try:
        if result["stopped"] != stopped:
            return None
        scores = {key: result[key] for key in result.keys() - {"run", "epoch", "stopped", "notes", "split", "head"}}
        return Run(folder, load(folder, net=model), scores, int(result["epoch"]), stopped, tuple(result["notes"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder / RESULT}: not a run's result ({error!r:.200}); take it away to go on") from error


class Session:
    """Where a run writes, what it trains, and what has been best so far."""

    def __init__(
        self, folder: Path, task: Task, train: Shown, val: Shown, training: Training, every: float | None = None
    ) -> None:
        self.folder, self.task, self.train, self.val, self.training = folder, task, train, val, training
        self.history: list[dict[str, Any]] = []
        self.monitor = task.recipe.optimisation.monitor
        self.every = every
        """Seconds between two checkpoints; None for a number that keeps their cost small."""
        self._noted: str | None = None
        """What was last told of batches taken in parts."""
        self._unsteady: set[str] = set()
        """Operations met that are not deterministic."""
        self._best: Arrays | None = None
        """The weights that were best so far."""
        self._best_written = False
        self._seconds = 0.0
        """Trained in this run's finished parts; the part going on began at `_begun`."""
        self._begun = self._saved = time.perf_counter()
        self._save_took = 0.0
        # The processor has nothing to wait for.
        training.strict = training.batches.device.type == "cpu"

    def go_on(self) -> Iterator[Event]:
        """Take up the last sound checkpoint, if there is one."""
        found = load_checkpoint(self.folder, self.training)
        if found is not None:
            self._seconds, self._best = float(found.facts["seconds"]), found.best
            self.training.parts = int(found.facts.get("parts", 1))
            if found.damage is not None:
                if processes.leads():
                    forget_last(self.folder)
                yield Noted(f"{found.damage}; the checkpoint before it was taken, of step {self.training.step}")
        metrics = self.folder / METRICS
        if metrics.exists():
            # A line written after the checkpoint will be written again.
            written = read_lines(metrics)
            if not all(isinstance(row.get("step"), int) for row in written):
                raise DataError(f"{metrics}: a line has no step; take that line out, and the run trains it again")
            if found is None and written:
                yield Noted(f"{self.folder / 'checkpoints'} has no checkpoint, so it begins again at the first step")
            self.history = [row for row in written if row["step"] <= self.training.step]
            if len(self.history) < len(written) and processes.leads():
                write_text(metrics, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.history))
        if self.history and self._best is None:
            raise DataError(
                f"{self.folder}: its checkpoint is of an older version of Pellucid; train anew with --recipe "
                f"{self.folder / 'recipe.json'}"
            )
        self._steer()

    def run(self) -> Iterator[Event]:
        """Train to the end, or to an interrupt; then leave the run folder complete."""
        if processes.leads():
            make_folder(self.folder / "checkpoints")
        self._begun = self._saved = time.perf_counter()
        with Interrupt() as interrupt, computing(self.training.recipe.engine) as self._unsteady:
            if not self.training.strict and not self.training.step:
                self._save()  # to go back to, where a bad step is found late
            self.training.wish = lambda: interrupt.asked
            while not self._done() and not self.training.stopping:
                yield from self._epoch()
            self._save()
            if self.training.clock is not None:
                yield self._profiled(self.training.clock)
            yield self._end(stopped=not self._done())

    def _profiled(self, clock: Clock) -> Profiled:
        """What the clock says, beside what this machine could do with as many threads."""
        engine, device = self.training.recipe.engine, self.training.batches.device
        flop = step_flop(self.training, *next(self.training.batches.epoch(0)))
        found = clock.to_json(engine.threads, flop, matrix_rate(engine.precision, device))
        if processes.leads():
            write_json(self.folder / PROFILE, found)
        return Profiled(found)

    def _end(self, *, stopped: bool) -> Run:
        """The finished run: process 0 makes it, and the others find what it has left."""
        with processes.leader_first():
            if processes.leads():
                return self._finish(stopped=stopped)
            model = copy.deepcopy(self.training.model).to("cpu") if self.task.recipe.net == "custom" else None
            found = finished(self.folder, model, stopped=stopped)
            assert found is not None
            return found

    def _done(self) -> bool:
        """Whether the last step is taken, or patience is over, or there is nothing to train but a head."""
        if self.task.recipe.head_alone:
            return True
        patience = self.task.recipe.optimisation.patience
        if patience is not None and waited(self.history, self.monitor) >= patience:
            return True
        return self.training.step >= self.training.steps

    def _steer(self) -> None:
        """Let the epochs so far have their effect on the next."""
        if self.task.recipe.optimisation.schedule == "plateau":
            self.training.lowered = lowered(self.history, self.monitor)

    def _epoch(self) -> Iterator[Event]:
        training, begun = self.training, time.perf_counter()
        epoch = training.epoch + 1
        try:
            images = yield from self._steps()
        except NotFiniteError:
            raise self._nonsense(forward_fault(training, self.train.names)) from None
        except DataError:
            # A picture that can no longer be read: all steps up to here are whole, and none is to be lost.
            self._save()
            raise
        speed = images / (time.perf_counter() - begun)
        training.align()
        self._refuse_nonsense()
        if training.epoch + 1 == epoch:
            return  # interrupted inside the epoch: its line is written when it is whole
        rate = rate_of(training.optimizer)
        row = {**self._scores(epoch), "lr": rate, "seconds": 0.0, "images_per_second": round(speed, 1)}
        row["seconds"] = round(self._spent(), 3)
        self.history.append(row)
        is_best = best(self.history, self.monitor) is row
        if is_best:
            self._keep_best()
        if processes.leads():
            append_line(self.folder / METRICS, row)
        self._save_if_due()
        self._steer()
        yield Epoch(row, is_best)

    def _steps(self) -> Generator[Event, None, int]:
        """Take the steps left in this epoch; the number of pictures."""
        training, images, begun, reported = self.training, 0, time.perf_counter(), 0.0
        epoch = training.epoch + 1
        for count in training.run_epoch():
            images += count
            if training.note() != self._noted:
                self._noted = training.note()
                yield Noted(self._noted or "")
            elapsed = time.perf_counter() - begun
            if elapsed - reported >= REPORT:
                reported = elapsed
                yield self._progress(epoch, images / elapsed)
            if training.epoch + 1 == epoch:
                # Not behind an epoch's last step: the checkpoint would say that its line is written.
                self._save_if_due()
            if training.stopping:
                break
        return images

    def _progress(self, epoch: int, speed: float) -> Progress:
        training = self.training
        loss, accuracy = training.sums()
        if not training.strict and not math.isfinite(loss):
            self._refuse_nonsense()
        images_left = (training.steps - training.step) * len(training.batches.labels_n) / len(training.batches)
        return Progress(epoch, training.step, training.steps, loss, accuracy, speed, images_left / speed)

    def _refuse_nonsense(self) -> None:
        """Stop where a step has left numbers that are none. Where the loop does not look itself, find that step."""
        if math.isfinite(self.training.sums()[0]) and weights_are_numbers(self.training.model):
            return
        if not self.training.strict:
            self._again_strictly()
        raise self._nonsense(update_fault(self.training, self.train.names))

    def _again_strictly(self) -> None:
        """From the last checkpoint take the steps again, looking at each."""
        bad = self.training.step
        load_checkpoint(self.folder, self.training)
        self.training.strict = True
        try:
            while self.training.step < bad:
                for _ in self.training.run_epoch():
                    if not weights_are_numbers(self.training.model):
                        return
        except NotFiniteError:
            raise self._nonsense(forward_fault(self.training, self.train.names)) from None

    def _nonsense(self, bad: BadStep) -> PellucidError:
        """The end of the run; its last checkpoint, of before, stays."""
        if processes.leads():
            bad.write(self.folder)
        cure = "look into the loss"
        if bad.layer is not None:
            peak = self.training.recipe.optimisation.rate
            cure = f"the learning rate is too high for this network: try --lr {peak / 10:g}"
        return PellucidError(
            f"the loss is no longer a number {bad.sentence()}; {cure} (all of it in {self.folder / BAD_STEP}; "
            "checkpoints/ is of before)"
        )

    def _scores(self, epoch: int) -> dict[str, Any]:
        """The epoch's own part of its line in `metrics.jsonl`."""
        logits_nk = self._logits(self.val.pixels)
        scores = evaluation(logits_nk, self.val.labels, self.task.source.classes)
        loss, accuracy = self.training.sums()
        row = {
            "epoch": epoch,
            "step": self.training.step,
            "loss": loss,
            "accuracy": accuracy,
            "val_loss": self._val_loss(logits_nk),
            "val_accuracy": scores["accuracy"],
            "val_auc": scores["auc"],
            "val_accuracy_low": scores["accuracy_low"],
            "val_accuracy_high": scores["accuracy_high"],
            "val_balanced_accuracy": scores["balanced_accuracy"],
        }
        if mixes(self.training.batches.augment):
            row["train_accuracy"] = self._clean_accuracy()
        return row

    def _clean_accuracy(self) -> float:
        """Accuracy on training pictures as they are: that on mixtures is bounded by their shares.

        Of the same thousand (at most) in each epoch.
        """
        chosen_n = order(self.task.recipe.seed, 0, len(self.train.labels))[:CLEAN]
        logits_nk = self._logits(picked(self.train.pixels, chosen_n))
        return float((logits_nk.argmax(1) == self.train.labels[chosen_n]).mean())

    def _logits(self, pixels_nhwc: NDArray[np.uint8] | Lazy) -> NDArray[np.float64]:
        """What the network to be kept says of pictures."""
        return infer_together(self.training.kept, self.task.preprocess, pixels_nhwc, len(self.task.source.classes))

    def _val_loss(self, logits_nk: NDArray[np.float64]) -> float:
        """The loss that training makes small, on val; its own, so that the two curves can be compared."""
        device = self.training.batches.device
        logits = torch.from_numpy(logits_nk).to(device, next(self.training.model.parameters()).dtype)
        with torch.no_grad():
            return float(self.training.loss(logits, torch.from_numpy(self.val.labels).to(device)))

    def _keep_best(self) -> None:
        """The weights as they are now are those to keep."""
        self._best = {name: np.array(array) for name, array in tensors(self.training.kept).items()}
        self._best_written = False

    def _spent(self) -> float:
        """Seconds of training so far, in all parts of the run."""
        return self._seconds + time.perf_counter() - self._begun

    def _save_if_due(self) -> None:
        """A checkpoint, where the last is old enough: never more often than writing one is worth."""
        every = max(EVERY, self._save_took / COST) if self.every is None else self.every
        if time.perf_counter() - self._saved >= every:
            self._save()

    def _save(self) -> None:
        """A checkpoint; of several processes, which all have the same state, process 0 writes it."""
        if not processes.leads():
            return
        begun = time.perf_counter()
        if not weights_are_numbers(self.training.model):
            self._refuse_nonsense()
        save_checkpoint(
            self.folder, self.training, {"seconds": self._spent(), "parts": self.training.parts}, self._best
        )
        if self._best is not None and not self._best_written:
            # For whoever wants the best weights alone; a resumed run takes them from its checkpoint.
            write_tensors(self.folder / "checkpoints" / BEST, self._best, {"format": "pt"})
            self._best_written = True
        self._saved = time.perf_counter()
        self._save_took = self._saved - begun

    def _finish(self, *, stopped: bool) -> Run:
        """The weights that were best on val, evaluated once more, and everything of the run folder that shows them."""
        top = best(self.history, self.monitor)
        epoch = self.training.epoch if top is None else int(top["epoch"])
        model = copy.deepcopy(self.training.model).to("cpu")
        fill(model, tensors(self.training.kept) if self._best is None else self._best, self.folder)
        recogniser = Recogniser(model.eval(), self.task.source.classes, self.task.preprocess, self.task.recipe.net)
        logits_nk = infer(model, self.task.preprocess, self.val.pixels)
        scores = evaluation(logits_nk, self.val.labels, self.task.source.classes)
        said = unsteady(self._unsteady)
        if (note := self.training.note()) is not None:
            said += (note,)
        if self.task.recipe.head is not None and not stopped:
            said += put_on_head(recogniser, self.task.recipe, self.train, scores)
            logits_nk = infer(model, self.task.preprocess, self.val.pixels)
            scores = evaluation(logits_nk, self.val.labels, self.task.source.classes)
        notes = (*said, *leave(self.folder, self.task, recogniser, self.history, self.val, logits_nk, scores, epoch))
        result = Run(self.folder, recogniser, scores, epoch, stopped, notes)
        # Written last: a run is finished when this file says so.
        write_json(self.folder / RESULT, result.to_json())
        return result

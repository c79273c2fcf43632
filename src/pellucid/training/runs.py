"""A training run from recipe to run folder, told as a stream of events; whoever iterates decides what to show."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pellucid import nets
from pellucid.bundle.folder import fill, load, tensors
from pellucid.bundle.recogniser import Recogniser, infer
from pellucid.data.batches import Batches, order
from pellucid.data.images import picked
from pellucid.data.load import Shown
from pellucid.data.mix import mixes
from pellucid.data.record import Row, read_record, write_record
from pellucid.errors import DataError, PellucidError, UsageError
from pellucid.files import (
    append_line,
    make_folder,
    new_folder,
    read_json,
    read_lines,
    read_tensors,
    write_json,
    write_tensors,
    write_text,
)
from pellucid.recipe import Recipe, read_recipe, settle, usual_batch_size
from pellucid.scores import evaluation
from pellucid.training.checkpoint import BEST, load_checkpoint, save_checkpoint
from pellucid.training.events import Epoch, Event, Progress, Run, Started, Understood
from pellucid.training.first import first_variances, show_first
from pellucid.training.interrupt import Interrupt
from pellucid.training.leave import environment, leave
from pellucid.training.loop import Training, place
from pellucid.training.losses import Loss, make_loss
from pellucid.training.machine import computing, pick_device, unsteady
from pellucid.training.monitor import best, lowered, waited
from pellucid.training.pictures import REPORT, Terms, pictures, write_skipped
from pellucid.training.prepare import Task, name_of, prepare
from pellucid.training.pretrained import begin
from pellucid.training.probe import Measured, choose, untried
from pellucid.training.sweep import Sweep, sweep
from pellucid.training.top import put_on_head

RESULT = "result.json"

#: Training pictures that are also recognised unmixed after each epoch, where the batches mix them.
CLEAN = 1000


def run(
    recipe: Recipe,
    *,
    out: str | Path | Callable[[Recipe], Path] | None = None,
    model: nn.Module | None = None,
    loss: Loss | None = None,
    measure: bool = False,
    terms: Terms | None = None,
) -> Iterator[Event]:
    """Train by a recipe into a new run folder; the last event is the `Run`.

    `out` is the run folder, by default the next free `runs/<data>-<net>-<n>`; or a function of the finished recipe that
    makes it. `model` and `loss` are one's own; `measure` repeats the engine's measurement though one is remembered;
    `terms` say what faults of the data are put up with. SIGINT or SIGTERM stops after a step and saves.

    Raises UsageError, DataError, or PellucidError when the loss stops being a number or the disk is full. Nothing is
    written before the data and the network are known to be good.
    """
    recipe = _named(recipe, model, loss)
    wanted = out if callable(out) or out is None else _free(Path(out))
    terms = terms or Terms()
    task = prepare(recipe, model, mismatch="class-mismatch" in terms.accept)
    yield Understood(task)
    shown = yield from pictures(task, terms)
    task, train, val = shown.task, shown.train, shown.val
    training, measured, variances = _set_up(task, train, model, loss, measure)
    found = _found(training)
    recipe = settle(
        task.recipe,
        precision=training.recipe.engine.precision,
        layout=training.recipe.engine.layout,
        threads=training.recipe.engine.threads,
        device=training.recipe.engine.device,
        lr=training.recipe.optimisation.lr,
    )
    task = dataclasses.replace(task, recipe=recipe)
    if wanted is None:
        folder = new_folder(Path("runs"), name_of(recipe))
    else:
        folder = make_folder(wanted(recipe) if callable(wanted) else wanted)
    write_json(folder / "environment.json", environment())
    write_record(folder, _record(task, train, val))
    write_skipped(folder, shown.skipped)
    left_out = tuple(f"{skipped.file}: {skipped.detail}" for skipped in shown.skipped)
    write_json(folder / "recipe.json", {**recipe.to_json(), "measured": list(measured.table)})
    show_first(folder, training.batches, task.source.classes, found)
    yield Started(folder, recipe, _image(task), measured, training.model, left_out, found, variances)
    yield from _Session(folder, task, train, val, training).run()


def resume(folder: str | Path, *, model: nn.Module | None = None, loss: Loss | None = None) -> Iterator[Event]:
    """Go on with a run that was stopped, and end as if it had not been. A finished run is left as it is.

    Raises DataError when the pictures are not those the run began with.
    """
    folder = Path(folder)
    finished = _finished(folder, model)
    if finished is not None:
        yield finished
        return
    if not (folder / "recipe.json").is_file():
        raise DataError(f"{folder}: no recipe.json here, so no run to go on with; give the folder that train made")
    recipe = read_recipe(folder / "recipe.json")
    task = prepare(recipe, model, mismatch=True)
    yield Understood(task)
    shown = yield from pictures(task, Terms(), begun=True)
    task, train, val = shown.task, shown.train, shown.val
    if _record(task, train, val) != read_record(folder):
        raise DataError(
            f"{recipe.data}: its pictures are not those that {folder} began with (compare {folder / 'images.csv'}); "
            "put them back, or train anew with --recipe"
        )
    training, measured, _ = _set_up(task, train, model, loss, measure=False)
    session = _Session(folder, task, train, val, training)
    session.go_on()
    yield Started(folder, recipe, _image(task), measured, training.model, ())
    yield from session.run()


def _finished(folder: Path, model: nn.Module | None) -> Run | None:
    """The run in `folder`, if it came to its end."""
    if not (folder / RESULT).is_file():
        return None
    result = read_json(folder / RESULT)
    try:
        if result["stopped"]:
            return None
        scores = {key: result[key] for key in result.keys() - {"run", "epoch", "stopped", "notes", "split", "head"}}
        return Run(folder, load(folder, net=model), scores, int(result["epoch"]), False, tuple(result["notes"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder / RESULT}: not a run's result ({error!r}); take it away to go on") from error


def _named(recipe: Recipe, model: nn.Module | None, loss: Loss | None) -> Recipe:
    """A recipe that says so where the network or the loss is one's own."""
    if model is not None:
        recipe = settle(recipe, net="custom")
    if loss is not None:
        if mixes(recipe.pictures.augment or ()):
            raise UsageError(
                "--augment mixup or cutmix gives every picture two labels, and a loss of your own takes one; leave it "
                "away, or use the loss cross-entropy or mse"
            )
        recipe = settle(recipe, loss="custom", label_smoothing=0.0)
    elif recipe.optimisation.loss == "custom":
        raise UsageError("--loss custom: this recipe used a loss of your own; give it to pellucid.train(loss=...)")
    return recipe


def _free(out: Path) -> Path:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out}: is there already, and a run never overwrites anything; choose another folder")
    return out


def _set_up(
    task: Task, train: Shown, model: nn.Module | None, loss: Loss | None, measure: bool
) -> tuple[Training, Measured, nets.Variances | None]:
    """The network in training, on its device, in the engine that is quickest here.

    And, where an initialiser was asked for, what its weights make of the first batch.
    """
    recipe, classes = task.recipe, len(task.source.classes)
    device = pick_device(recipe.engine.device)
    recipe = settle(recipe, device=device.type)
    batches = Batches(
        torch.from_numpy(train.pixels).to(device) if isinstance(train.pixels, np.ndarray) else train.pixels,
        torch.from_numpy(train.labels).to(device),
        task.preprocess,
        tuple(recipe.pictures.augment or ()),
        _batch_size(recipe, len(train.labels)),
        recipe.seed,
        balanced=recipe.optimisation.balance == "sample",
    )
    if model is None:
        model = nets.build(recipe.net, classes, _image(task), seed=recipe.seed)
    variances = None
    if recipe.optimisation.init is not None:
        nets.initialise(model, recipe.optimisation.init, seed=recipe.seed)
        variances = first_variances(model.to(device), batches)
    begin(model, recipe, task.weights, task.source.classes)
    loss = loss or make_loss(recipe, np.bincount(train.labels, minlength=classes).tolist())
    if recipe.head_alone:
        measured = Measured(untried(recipe.engine), (), remembered=False)
    else:
        measured = choose(model.to(device), batches, recipe, loss, again=measure)
    recipe = dataclasses.replace(recipe, engine=measured.engine)
    if task.teacher is not None:
        task.teacher.model.to(device)
    training = Training(place(model, measured.engine, device), batches, recipe, loss, task.teacher)
    return training, measured, variances


def _found(training: Training) -> Sweep | None:
    """With `--lr find`, the sweep; what it suggests becomes the run's rate."""
    if training.recipe.optimisation.lr != "find":
        return None
    with computing(training.recipe.engine):
        found = sweep(training)
    training.recipe = settle(training.recipe, lr=found.suggestion)
    return found


def _batch_size(recipe: Recipe, pictures: int) -> int:
    size = recipe.optimisation.batch_size
    return pictures if size == "all" else size or usual_batch_size(pictures)


def _image(task: Task) -> tuple[int, int, int]:
    return (task.preprocess.channels, *task.preprocess.size)


def _record(task: Task, train: Shown, val: Shown) -> list[Row]:
    own = [
        Row(name, task.source.classes[label], split, digest)
        for split, loaded in (("train", train), ("val", val))
        for name, label, digest in zip(loaded.names, loaded.labels.tolist(), loaded.raw_digests, strict=True)
    ]
    taken = {row.digest for row in own}
    earlier = () if task.weights is None else task.weights.record
    return own + [row._replace(split="before") for row in earlier if row.split != "val" and row.digest not in taken]


class _Session:
    """One run on its way: where it writes, what it trains, and what has been best so far."""

    def __init__(self, folder: Path, task: Task, train: Shown, val: Shown, training: Training) -> None:
        self.folder, self.task, self.train, self.val, self.training = folder, task, train, val, training
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.monitor = task.recipe.optimisation.monitor
        self.unsteady: set[str] = set()

    def go_on(self) -> None:
        """Take up the last checkpoint, if there is one."""
        facts = load_checkpoint(self.folder, self.training)
        metrics = self.folder / "metrics.jsonl"
        if facts is not None:
            self.seconds = facts["seconds"]
        if metrics.exists():
            # A line written after the checkpoint will be written again.
            self.history = [row for row in read_lines(metrics) if row["step"] <= self.training.step]
            write_text(metrics, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.history))
        self._steer()

    def run(self) -> Iterator[Event]:
        """Train to the end, or to an interrupt; then leave the run folder complete."""
        make_folder(self.folder / "checkpoints")
        with Interrupt() as interrupt, computing(self.training.recipe.engine) as self.unsteady:
            while not self._done() and not interrupt.asked:
                yield from self._epoch(interrupt)
            yield self._finish(stopped=not self._done())

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

    def _epoch(self, interrupt: Interrupt) -> Iterator[Event]:
        training, begun, reported, images = self.training, time.perf_counter(), 0.0, 0
        epoch = training.epoch + 1
        for count in training.run_epoch():
            images += count
            elapsed = time.perf_counter() - begun
            if elapsed - reported >= REPORT:
                reported = elapsed
                yield self._progress(epoch, images / elapsed)
            if interrupt.asked:
                break
        speed = images / (time.perf_counter() - begun)
        self._refuse_nonsense(epoch)
        row = None
        if training.epoch + 1 > epoch:
            rate = max(group["lr"] for group in training.optimizer.param_groups)
            row = {**self._scores(epoch), "lr": rate, "seconds": 0.0, "images_per_second": round(speed, 1)}
        self.seconds += time.perf_counter() - begun
        if row is None:
            # Interrupted inside the epoch: its line is written when it is whole.
            self._save()
            return
        row["seconds"] = round(self.seconds, 3)
        self.history.append(row)
        is_best = best(self.history, self.monitor) is row
        if is_best:
            self._write_best()
        append_line(self.folder / "metrics.jsonl", row)
        self._save()
        self._steer()
        yield Epoch(row, is_best)

    def _progress(self, epoch: int, speed: float) -> Progress:
        training = self.training
        self._refuse_nonsense(epoch)
        images_left = (training.steps - training.step) * len(training.batches.labels_n) / len(training.batches)
        loss, accuracy = training.sums()
        return Progress(epoch, training.step, training.steps, loss, accuracy, speed, images_left / speed)

    def _refuse_nonsense(self, epoch: int) -> None:
        if not math.isfinite(self.training.sums()[0]):
            peak = self.training.recipe.optimisation.rate
            raise PellucidError(
                f"the loss is no longer a number (epoch {epoch}, step {self.training.step}): the learning rate "
                f"{peak:g} is too high for this network; try --lr {peak / 10:g}"
            )

    def _scores(self, epoch: int) -> dict[str, Any]:
        """The epoch's own part of its line in `metrics.jsonl`."""
        logits_nk = infer(self.training.kept, self.task.preprocess, self.val.pixels)
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
        logits_nk = infer(self.training.kept, self.task.preprocess, picked(self.train.pixels, chosen_n))
        return float((logits_nk.argmax(1) == self.train.labels[chosen_n]).mean())

    def _val_loss(self, logits_nk: NDArray[np.float64]) -> float:
        """The loss that training makes small, on val; its own, so that the two curves can be compared."""
        device = self.training.batches.device
        logits = torch.from_numpy(logits_nk).to(device, next(self.training.model.parameters()).dtype)
        with torch.no_grad():
            return float(self.training.loss(logits, torch.from_numpy(self.val.labels).to(device)))

    def _write_best(self) -> None:
        write_tensors(self.folder / "checkpoints" / BEST, tensors(self.training.kept), {"format": "pt"})

    def _save(self) -> None:
        save_checkpoint(self.folder, self.training, {"seconds": self.seconds})

    def _finish(self, *, stopped: bool) -> Run:
        """The weights that were best on val, evaluated once more, and everything of the run folder that shows them."""
        top = best(self.history, self.monitor)
        epoch = self.training.epoch if top is None else int(top["epoch"])
        if top is None:
            self._write_best()
        model = copy.deepcopy(self.training.model).to("cpu")
        fill(model, read_tensors(self.folder / "checkpoints" / BEST), self.folder / "checkpoints" / BEST)
        recogniser = Recogniser(model.eval(), self.task.source.classes, self.task.preprocess, self.task.recipe.net)
        logits_nk = infer(model, self.task.preprocess, self.val.pixels)
        scores = evaluation(logits_nk, self.val.labels, self.task.source.classes)
        said = unsteady(self.unsteady)
        if self.task.recipe.head is not None and not stopped:
            said += put_on_head(recogniser, self.task.recipe, self.train, scores)
            logits_nk = infer(model, self.task.preprocess, self.val.pixels)
            scores = evaluation(logits_nk, self.val.labels, self.task.source.classes)
        notes = (*said, *leave(self.folder, self.task, recogniser, self.history, self.val, logits_nk, scores, epoch))
        result = Run(self.folder, recogniser, scores, epoch, stopped, notes)
        # Written last: a run is finished when this file says so.
        write_json(self.folder / RESULT, result.to_json())
        return result

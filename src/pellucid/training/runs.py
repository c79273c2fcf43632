"""A training run from recipe to run folder, told as a stream of events; whoever iterates decides what to show."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pellucid import nets
from pellucid.data.batches import WHOLE, Batches, Shard
from pellucid.data.load import Shown
from pellucid.data.mix import mixes
from pellucid.data.record import Row, read_record, write_record
from pellucid.errors import DataError, UsageError
from pellucid.files import alone_in, clear_unfinished, put, put_new, staged, write_json
from pellucid.recipe import Recipe, read_recipe, settle, usual_batch_size
from pellucid.training import processes, restart
from pellucid.training.budget import fit_budget
from pellucid.training.clock import Clock
from pellucid.training.events import Event, Started, Understood
from pellucid.training.first import first_variances, look, show_first
from pellucid.training.leave import environment
from pellucid.training.loop import Training, place
from pellucid.training.losses import Loss, make_loss
from pellucid.training.machine import computing, pick_device
from pellucid.training.memory import keeping_freed
from pellucid.training.misfits import refuse_misfits
from pellucid.training.pictures import Terms, pictures, write_skipped
from pellucid.training.prepare import Task, name_of, prepare
from pellucid.training.pretrained import begin
from pellucid.training.probe import Measured, choose_together, untried
from pellucid.training.session import Session, finished
from pellucid.training.sweep import Sweep, sweep


def run(
    recipe: Recipe,
    *,
    out: str | Path | Callable[[Recipe], Path] | None = None,
    model: nn.Module | None = None,
    loss: Loss | None = None,
    measure: bool = False,
    terms: Terms | None = None,
    every: float | None = None,
    profile: bool = False,
) -> Iterator[Event]:
    """Train by a recipe into a new run folder; the last event is the `Run`.

    `out` is the run folder, by default the next free `runs/<data>-<net>-<n>`; or a function of the finished recipe that
    makes it. `model` and `loss` are one's own; `measure` repeats the engine's measurement though one is remembered;
    `terms` say what faults of the data are put up with. `every` is seconds between two checkpoints, by default at least
    30 and so many that they cost at most 2 % of the run. `profile` tells where the time of the steps went. SIGINT,
    SIGTERM or SIGHUP stops after a step and saves.

    Raises UsageError, DataError, or PellucidError when the loss stops being a number or the disk is full. Nothing is
    written before the data and the network are known to be good.

    Of several processes, as torchrun starts them, each iterates and has the same events; process 0 alone writes. A run
    that torchrun has started again goes on from its last checkpoint.
    """
    with processes.together(), keeping_freed():
        yield from _run(recipe, out, model, loss, measure, terms or Terms(), every, profile)


def _run(
    recipe: Recipe,
    out: str | Path | Callable[[Recipe], Path] | None,
    model: nn.Module | None,
    loss: Loss | None,
    measure: bool,
    terms: Terms,
    every: float | None,
    profile: bool,
) -> Iterator[Event]:
    launched = restart.launch()
    begun = None if callable(out) else processes.led(lambda: restart.begun(out, launched))
    if begun is not None:
        yield from _resume(Path(begun), model, loss, every, profile)
        return
    with processes.leader_first():
        recipe = _named(recipe, model, loss)
        if processes.several() and recipe.optimisation.budget is not None:
            raise UsageError(
                f"--budget {recipe.optimisation.budget:g}: is fitted by one process, and there are {processes.size()}; "
                "give --epochs, or leave torchrun away"
            )
        wanted = out if callable(out) or out is None else free(Path(out))
        task = prepare(recipe, model, mismatch="class-mismatch" in terms.accept)
    yield Understood(task)
    with processes.leader_first():
        shown = yield from pictures(task, terms)
    task, train, val = shown.task, shown.train, shown.val
    training, measured, variances = _set_up(task, train, val, model, loss, measure)
    found = _found(training)
    recipe = settle(
        task.recipe,
        net=training.recipe.net,
        epochs=training.recipe.optimisation.epochs,
        budget=None,
        precision=training.recipe.engine.precision,
        layout=training.recipe.engine.layout,
        threads=training.recipe.engine.threads,
        device=training.recipe.engine.device,
        lr=training.recipe.optimisation.lr,
    )
    task = dataclasses.replace(task, recipe=recipe)

    def make() -> str:
        path = wanted(recipe) if callable(wanted) else wanted
        with staged("runs" if path is None else path.parent) as fresh:
            write_json(fresh / "environment.json", environment(launched))
            write_record(fresh, _record(task, train, val))
            write_skipped(fresh, shown.skipped)
            write_json(fresh / "recipe.json", {**recipe.to_json(), "measured": list(measured.table)})
            show_first(fresh, training.batches, task.source.classes, found)
            return str(put_new(fresh, name_of(recipe)) if path is None else put(fresh, path))

    folder = Path(processes.led(make))
    left_out = tuple(f"{skipped.file}: {skipped.detail}" for skipped in shown.skipped)
    yield Started(folder, recipe, _image(task), measured, training.model, left_out, found, variances)
    training.clock = Clock(training.batches.device) if profile else None
    with _alone(folder):
        yield from Session(folder, task, train, val, training, every).run()


def resume(
    folder: str | Path,
    *,
    model: nn.Module | None = None,
    loss: Loss | None = None,
    every: float | None = None,
    profile: bool = False,
) -> Iterator[Event]:
    """Go on with a run that was stopped or killed, and end as if it had not been. A finished run is left as it is.

    `every` and `profile` as for `run`. Raises DataError when the pictures are not those the run began with, and where
    no checkpoint is sound; UsageError while another process trains the run.
    """
    with processes.together(), keeping_freed():
        yield from _resume(Path(folder), model, loss, every, profile)


def _resume(
    folder: Path, model: nn.Module | None, loss: Loss | None, every: float | None, profile: bool
) -> Iterator[Event]:
    done = finished(folder, model)
    if done is not None:
        yield done
        return
    if not (folder / "recipe.json").is_file():
        raise DataError(f"{folder}: no recipe.json here, so no run to go on with; give the folder that train made")
    recipe = read_recipe(folder / "recipe.json")
    with processes.leader_first():
        task = prepare(recipe, model, mismatch=True)
    yield Understood(task)
    with processes.leader_first():
        shown = yield from pictures(task, Terms(), begun=True)
    task, train, val = shown.task, shown.train, shown.val
    if _record(task, train, val) != read_record(folder):
        raise DataError(
            f"{recipe.data}: its pictures are not those that {folder} began with (compare {folder / 'images.csv'}); "
            "put them back, or train anew with --recipe"
        )
    training, measured, _ = _set_up(task, train, val, model, loss, measure=False)
    training.clock = Clock(training.batches.device) if profile else None
    restart.refuse_other_batches(folder, training.batches)
    with _alone(folder):
        session = Session(folder, task, train, val, training, every)
        yield from session.go_on()
        yield Started(folder, recipe, _image(task), measured, training.model, ())
        yield from session.run()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only run in a folder, and clear away what a killed one left unfinished; process 0 sees to it."""
    with contextlib.ExitStack() as stack:
        with processes.leader_first():
            if processes.leads():
                stack.enter_context(alone_in(folder))
                clear_unfinished(folder)
        yield


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


def free(out: Path) -> Path:
    """The folder to make. Raises UsageError where there is something that would be overwritten."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out}: is there already, and a run never overwrites anything; choose another folder")
    return out


def _set_up(
    task: Task, train: Shown, val: Shown, model: nn.Module | None, loss: Loss | None, measure: bool
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
        shard=Shard(processes.rank(), processes.size()),
    )
    restart.refuse_small_batches(batches)
    variances = None

    def begun(net: str) -> nn.Module:
        """The network of that name, or one's own, with its first weights."""
        nonlocal variances
        made = model
        if made is None:
            made = nets.build(net, classes, _image(task), seed=recipe.seed)
        if recipe.optimisation.init is not None:
            nets.initialise(made, recipe.optimisation.init, seed=recipe.seed)
        if model is None and task.weights is None:
            look(made, batches)
        if recipe.optimisation.init is not None:
            variances = first_variances(made.to(device), dataclasses.replace(batches, shard=WHOLE))
        begin(made, recipe, task.weights, task.source.classes)
        return made.to(device)

    loss = loss or make_loss(recipe, np.bincount(train.labels, minlength=classes).tolist())
    if recipe.optimisation.budget is not None:
        fitted = fit_budget(recipe, begun, batches, val, loss, again=measure)
        recipe, network, measured = fitted.recipe, fitted.model, fitted.measured
        refuse_misfits(recipe, len(train.labels))
    elif recipe.head_alone:
        network, measured = begun(recipe.net), Measured(untried(recipe.engine), (), remembered=False)
    else:
        network = begun(recipe.net)
        measured = choose_together(network, batches, recipe, loss, again=measure)
    recipe = dataclasses.replace(recipe, engine=measured.engine)
    if task.teacher is not None:
        task.teacher.model.to(device)
    training = Training(place(network, measured.engine, device), batches, recipe, loss, task.teacher)
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

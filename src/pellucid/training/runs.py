"""A training run from recipe to run folder, told as a stream of events; whoever iterates decides what to show."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pellucid import nets
from pellucid.bundle.folder import load
from pellucid.data.batches import Batches
from pellucid.data.load import Shown
from pellucid.data.mix import mixes
from pellucid.data.record import Row, read_record, write_record
from pellucid.errors import DataError, UsageError
from pellucid.files import alone_in, clear_unfinished, put, put_new, read_json, staged, write_json
from pellucid.recipe import Recipe, read_recipe, settle, usual_batch_size
from pellucid.training.budget import fit_budget
from pellucid.training.events import Event, Run, Started, Understood
from pellucid.training.first import first_variances, look, show_first
from pellucid.training.leave import environment
from pellucid.training.loop import Training, place
from pellucid.training.losses import Loss, make_loss
from pellucid.training.machine import computing, pick_device
from pellucid.training.misfits import refuse_misfits
from pellucid.training.pictures import Terms, pictures, write_skipped
from pellucid.training.prepare import Task, name_of, prepare
from pellucid.training.pretrained import begin
from pellucid.training.probe import Measured, choose, untried
from pellucid.training.session import RESULT, Session
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
) -> Iterator[Event]:
    """Train by a recipe into a new run folder; the last event is the `Run`.

    `out` is the run folder, by default the next free `runs/<data>-<net>-<n>`; or a function of the finished recipe that
    makes it. `model` and `loss` are one's own; `measure` repeats the engine's measurement though one is remembered;
    `terms` say what faults of the data are put up with. `every` is seconds between two checkpoints, by default at least
    30 and so many that they cost at most 2 % of the run. SIGINT, SIGTERM or SIGHUP stops after a step and saves.

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
    path = wanted(recipe) if callable(wanted) else wanted
    with staged("runs" if path is None else path.parent) as fresh:
        write_json(fresh / "environment.json", environment())
        write_record(fresh, _record(task, train, val))
        write_skipped(fresh, shown.skipped)
        write_json(fresh / "recipe.json", {**recipe.to_json(), "measured": list(measured.table)})
        show_first(fresh, training.batches, task.source.classes, found)
        folder = put_new(fresh, name_of(recipe)) if path is None else put(fresh, path)
    left_out = tuple(f"{skipped.file}: {skipped.detail}" for skipped in shown.skipped)
    yield Started(folder, recipe, _image(task), measured, training.model, left_out, found, variances)
    with alone_in(folder):
        yield from Session(folder, task, train, val, training, every).run()


def resume(
    folder: str | Path,
    *,
    model: nn.Module | None = None,
    loss: Loss | None = None,
    every: float | None = None,
) -> Iterator[Event]:
    """Go on with a run that was stopped or killed, and end as if it had not been. A finished run is left as it is.

    `every` as for `run`. Raises DataError when the pictures are not those the run began with, and where no checkpoint
    is sound; UsageError while another process trains the run.
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
    training, measured, _ = _set_up(task, train, val, model, loss, measure=False)
    with alone_in(folder):
        clear_unfinished(folder)
        session = Session(folder, task, train, val, training, every)
        yield from session.go_on()
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
    )
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
            variances = first_variances(made.to(device), batches)
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
        measured = choose(network, batches, recipe, loss, again=measure)
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

"""The pictures of a run: opened once, audited, packed, and what may not be trained on refused."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pellucid.data.audit import MAX_BAD, Audit, Fault, audit, together
from pellucid.data.decode import BadImage
from pellucid.data.images import Images, Lazy, Skipped, Source
from pellucid.data.load import Loaded, Rows, Shown, Streamed, fits, load, refuse_too_bad
from pellucid.data.pack import Packed, in_memory, no_room, pack
from pellucid.data.preprocess import Preprocess
from pellucid.data.reading import hexadecimal
from pellucid.errors import DataError, UsageError, did_you_mean
from pellucid.files import write_bytes
from pellucid.recipe import Recipe
from pellucid.training.events import Audited, Reading
from pellucid.training.prepare import PHOTOGRAPH, Task

#: Seconds between two reports of progress.
REPORT = 0.1

SKIPPED = "skipped.csv"

T = TypeVar("T")


@dataclass(frozen=True)
class Terms:
    """What of the data is put up with, and how it is kept. Decides whether there is a run, not what comes of it."""

    accept: tuple[Fault, ...] = ()
    max_bad: float = MAX_BAD
    cache: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be, with a UsageError."""
        for fault in self.accept:
            if fault not in get_args(Fault):
                raise UsageError(f"--accept {fault!r} is no fault: {did_you_mean(str(fault), get_args(Fault))}")
        if not 0 <= self.max_bad <= 1:
            raise UsageError(f"--max-bad {self.max_bad:g}: expected a share from 0 to 1, such as 0.05")


@dataclass(frozen=True, eq=False)
class Pictures:
    """All that a run is made of."""

    task: Task
    """With the statistics of the training pictures in its preprocessing."""
    train: Shown
    val: Shown
    skipped: tuple[Skipped, ...]
    """What was left out."""


def pictures(task: Task, terms: Terms, *, begun: bool = False) -> Generator[Reading | Audited, None, Pictures]:
    """Read and audit a run's pictures.

    With `begun`, the run has been begun on them before, and nothing is refused. Raises DataError for what would make
    training wrong, with the option that allows it, and where neither disk nor memory has room.
    """
    if task.source.kind == "named":
        train = yield from _telling(lambda tell: load(task.train, task.preprocess, progress=tell))
        val = yield from _telling(lambda tell: load(task.val, task.preprocess, progress=tell))
        if _by_the_data(task):
            task = dataclasses.replace(task, preprocess=task.preprocess.with_statistics(train.pixels))
        return Pictures(task, train, val, ())
    source = _seen(task)
    images, split_n = together(source)
    packed, notes = yield from read(source.place, images, task.preprocess, cache=terms.cache)
    found = audit(source, images, split_n, packed.facts, packed.shown, least=least(task.recipe, task.preprocess))
    refusal = None if begun else found.refusal(terms.accept, terms.max_bad)
    if refusal is not None:
        raise DataError(refusal)
    task, moved = _undoubled(task, images, found)
    if moved:
        notes.append(f"{moved} of the pictures held out are doubles of others; they are trained on with these.")
    yield Audited(found, tuple(notes))
    return _chosen(task, images, split_n, source, packed)


def _by_the_data(task: Task) -> bool:
    """Whether mean and deviation are those of the training pictures: not where weights brought theirs."""
    return task.recipe.pictures.normalise == "data" and not task.normalised


def read(
    place: str, images: Images, preprocess: Preprocess, *, cache: bool, full: bool = False
) -> Generator[Reading, None, tuple[Packed, list[str]]]:
    """Open every picture once, into a pack where that has room; and notes on what was done instead.

    Raises DataError where neither disk nor memory has room.
    """
    shape = (*preprocess.size, preprocess.channels)
    notes: list[str] = []
    if cache:
        why = no_room(place, images, preprocess)
        if why is None:
            packed = yield from _telling(lambda tell: pack(place, images, preprocess, progress=tell, full=full))
            return packed, notes
        if not fits(len(images), shape):
            raise DataError(
                f"{place}: {why}, and memory has no room for them either: choose a smaller --size or --sample, point "
                "PELLUCID_CACHE at a folder on a roomier disk, or decode the pictures anew every epoch with --no-cache"
            )
        notes.append(f"The pictures are decoded into memory, for this run only: {why}.")
    keep = fits(len(images), shape)
    if not keep:
        notes.append("The pictures have no room in memory; without a cache they are decoded anew every epoch.")
    packed = yield from _telling(lambda tell: in_memory(images, preprocess, keep=keep, progress=tell))
    return packed, notes


def least(recipe: Recipe, preprocess: Preprocess) -> int:
    """The side below which a picture is too small for the network.

    What the network wants; but where that was taken from small pictures themselves, half of it: half of them are below
    their own median. A padded picture is never enlarged.
    """
    if preprocess.resize == "pad":
        return 1
    side = min(preprocess.size)
    return side if recipe.pictures.size is not None or side >= PHOTOGRAPH else max(1, side // 2)


def write_skipped(folder: Path, skipped: tuple[Skipped, ...]) -> None:
    """Write the run's `skipped.csv`, which opens in a spreadsheet; nothing where nothing was left out."""
    if not skipped:
        return
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(Skipped._fields)
    writer.writerows(skipped)
    write_bytes(folder / SKIPPED, buffer.getvalue().encode("utf-8-sig", "backslashreplace"))


def _telling(work: Callable[[Callable[[int, int], None]], T]) -> Generator[Reading, None, T]:
    """Do work in a thread of its own, telling now and then how many pictures are done."""
    state = (0, 0)

    def count(done: int, total: int) -> None:
        nonlocal state
        state = (done, total)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work, count)
        while wait([future], timeout=REPORT).not_done:
            yield Reading(*state)
        return future.result()


def _seen(task: Task) -> Source:
    """The source with the pictures that the run has to do with: all, or those of the sample."""
    if task.recipe.pictures.sample == 1:
        return task.source
    names = {*task.train.names, *task.val.names}
    splits = {}
    for split, images in task.source.splits.items():
        kept = np.flatnonzero(np.fromiter((name in names for name in images.names), np.bool_, len(images)))
        if len(kept):
            splits[split] = images.take(kept)
    return dataclasses.replace(task.source, splits=splits)


def _undoubled(task: Task, images: Images, found: Audit) -> tuple[Task, int]:
    """Where val was split off train, the task with all doubles of training pictures trained on; and how many these are.

    Else the network would be selected on pictures that it has learned by heart.
    """
    if not task.val_split_off or not len(found.same):
        return task, 0
    N = len(images)
    first, second = found.same.T
    _, group_n = connected_components(coo_array((np.ones(len(first)), (first, second)), shape=(N, N)), directed=False)
    place = {name: n for n, name in enumerate(images.names)}
    train_n, val_n = (np.array([place[name] for name in part.names], np.int64) for part in (task.train, task.val))
    doubles = np.isin(group_n[val_n], group_n[train_n])
    if not doubles.any() or doubles.all():
        return task, 0
    kept = np.sort(np.concatenate([train_n, val_n[doubles]]))
    task = dataclasses.replace(task, train=images.take(kept), val=images.take(val_n[~doubles]))
    return task, int(doubles.sum())


def _chosen(task: Task, images: Images, split_n: NDArray[np.int64], source: Source, packed: Packed) -> Pictures:
    """The run's pictures among those that were read, without the bad ones."""
    place = {name: n for n, name in enumerate(images.names)}
    shape = (*task.preprocess.size, task.preprocess.channels)
    roomy = packed.pixels is not None and fits(len(task.train) + len(task.val), shape)
    parts = []
    for part in (task.train, task.val):
        at_n = np.array([place[name] for name in part.names], np.int64)
        bad = {n: packed.facts.bad[at] for n, at in enumerate(at_n.tolist()) if at in packed.facts.bad}
        if part is task.train or len(bad) == len(part):
            refuse_too_bad(part, bad, 1.0)
        good = np.setdiff1d(np.arange(len(part)), list(bad))
        parts.append((part.take(good), at_n[good], tuple(bad.values())))
    loaded = [_loaded(part, at_n, bad, packed, task.preprocess, roomy=roomy) for part, at_n, bad in parts]
    train_n = parts[0][1]
    preprocess = task.preprocess
    if _by_the_data(task):
        preprocess = preprocess.with_sums(packed.facts.sums[train_n].sum(axis=0), len(train_n))
    splits = tuple(source.splits)
    held = set(task.val.names) if task.val_split_off else set()
    skipped = [
        Skipped(
            images.names[n],
            source.classes[images.labels[n]],
            "val" if images.names[n] in held else splits[split_n[n]],
            bad.kind,
            bad.detail,
        )
        for n, bad in sorted(packed.facts.bad.items())
    ]
    # What stands for the data from here on are the good ones; the self-test is made of some.
    task = dataclasses.replace(task, preprocess=preprocess, train=parts[0][0], val=parts[1][0])
    return Pictures(task, loaded[0], loaded[1], (*skipped, *source.left_out))


def _loaded(
    part: Images,
    at_n: NDArray[np.int64],
    bad: tuple[BadImage, ...],
    packed: Packed,
    preprocess: Preprocess,
    *,
    roomy: bool,
) -> Shown:
    pixels: NDArray[np.uint8] | Lazy
    if packed.pixels is None:
        pixels = Streamed(part.files or (), part.names, preprocess)
    else:
        pixels = Rows(packed.pixels, packed.row_n[at_n])
        if roomy:
            pixels = pixels.take(np.arange(len(at_n)))
    digests = tuple(hexadecimal(value) for value in packed.facts.columns["digest"][at_n].tolist())
    return Loaded(pixels, part.labels, part.names, bad, digests)

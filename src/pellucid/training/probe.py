"""The engine measures before it runs: which layout, precision and number of threads make this step quickest here.

Each candidate takes real steps of the real network on a real batch, the candidates in turn, so that a busy moment of
the machine falls on all of them; the least time of each counts, and a later candidate must beat the best before it by
5 %, so that noise does not choose. The choice touches the last bits of the result, so it is remembered for this
processor, torch, network, batch and size, and written to the recipe.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
import json
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pellucid.data.batches import WHOLE, Batches
from pellucid.data.cache import cache_folder
from pellucid.data.mix import Target
from pellucid.errors import PellucidError
from pellucid.files import make_folder, read_json, write_json
from pellucid.recipe import Engine, Layout, Precision, Recipe
from pellucid.training import processes
from pellucid.training.loop import Training, place
from pellucid.training.losses import Loss
from pellucid.training.machine import bfloat16_works, own_cores, processor, threads
from pellucid.training.memory import NoRoomError, no_room

#: What a later candidate must win by.
MARGIN = 0.05
#: A candidate that takes more than so many times the least is hopeless after a round, and beaten after `FEWEST_ROUNDS`.
HOPELESS, BEATEN = 2.0, 1.25
#: Rounds through the candidates, at least and at most; and after how many seconds, or after which share of the run to
#: come, no further one is begun. Where several are left that are not beaten, the share is the larger one: two threads
#: that something else disturbs for a second look slower than one. Steps so long that the seconds are over before the
#: fewest rounds go on with those not beaten alone, unless the run is short.
FEWEST_ROUNDS, ROUNDS, SECONDS, SHARE, CLOSE_SHARE = 3, 8, 6.0, 0.03, 0.08
#: Steps that show how long the steps of a run will be, at least and at most, and the seconds after which it is enough.
FEWEST_STEPS, STEPS, STEPS_SECONDS = 6, 60, 2.0


@dataclass(frozen=True)
class Measured:
    """A choice of engine, and the table it was chosen by."""

    engine: Engine
    table: tuple[dict[str, Any], ...]
    """Rows of layout, precision, threads, milliseconds (the least of a step), chosen; in the order tried."""
    remembered: bool
    """Whether an earlier run's measurement was used."""


def settled(engine: Engine) -> bool:
    """Whether nothing is left to measure."""
    return engine.precision != "auto" and engine.layout != "auto" and engine.threads > 0


def candidates(engine: Engine, device: torch.device) -> list[Engine]:
    """The engines to try, plainest first, with what the recipe pins left as it is."""
    precisions: list[Precision] = [engine.precision] if engine.precision != "auto" else ["float32", "bfloat16"]
    if engine.precision == "auto" and not bfloat16_works(device):
        precisions.remove("bfloat16")
    layouts: list[Layout] = [engine.layout] if engine.layout != "auto" else ["nchw", "nhwc"]
    if engine.threads:
        counts = [engine.threads]
    elif device.type == "cpu":
        cores = own_cores()
        counts = sorted({1, math.ceil(cores / 2), cores})
    else:
        counts = [1]
    return [
        dataclasses.replace(engine, precision=precision, layout=layout, threads=count)
        for precision in precisions
        for layout in layouts
        for count in counts
    ]


def untried(engine: Engine) -> Engine:
    """A sound engine without a measurement, for a network that is asked and not trained: all cores, in float32."""
    return dataclasses.replace(
        engine,
        precision="float32" if engine.precision == "auto" else engine.precision,
        layout="nhwc" if engine.layout == "auto" else engine.layout,
        threads=engine.threads or own_cores(),
    )


def choose(model: nn.Module, batches: Batches, recipe: Recipe, loss: Loss, *, again: bool = False) -> Measured:
    """The quickest engine for this network and batch on this machine, measured now or remembered.

    The model, and the state of torch's generators, are as before afterwards. `again` measures although remembered.
    """
    device = batches.device
    if settled(recipe.engine):
        return Measured(recipe.engine, (), remembered=False)
    tried = candidates(recipe.engine, device)
    if len(tried) == 1:
        return Measured(tried[0], (), remembered=False)
    key = _key(recipe, batches, tried)
    known = None if again else _recall(key, tried)
    if known is not None:
        return known
    with _same_randomness(batches.device):
        milliseconds, parts = _time(model, batches, recipe, loss, tried), 1
        while min(milliseconds) == math.inf:
            # None has room for the batch: in the parts, then, that training will come to.
            parts *= 2
            if parts > batches.batch_size:
                raise no_room(1, batches.preprocess.size)
            milliseconds = _time(model, batches, recipe, loss, tried, parts)
    best = pick(milliseconds)
    table = tuple(
        {
            "layout": engine.layout,
            "precision": engine.precision,
            "threads": engine.threads,
            "milliseconds": round(ms, 3),
            "chosen": i == best,
        }
        for i, (engine, ms) in enumerate(zip(tried, milliseconds, strict=True))
        # One that memory had no room for is no candidate.
        if ms < math.inf
    )
    if parts == 1:
        _remember(key, table)
    return Measured(tried[best], table, remembered=False)


def choose_together(model: nn.Module, batches: Batches, recipe: Recipe, loss: Loss, *, again: bool = False) -> Measured:
    """What `choose` gives for one process's part of a batch, measured by process 0 while the others wait."""
    if batches.shard.of == 1:
        return choose(model, batches, recipe, loss, again=again)
    own = dataclasses.replace(batches, batch_size=math.ceil(batches.batch_size / batches.shard.of), shard=WHOLE)
    told = processes.led(lambda: dataclasses.asdict(choose(model, own, recipe, loss, again=again)))
    return Measured(Engine(**told["engine"]), tuple(told["table"]), bool(told["remembered"]))


def pick(milliseconds: list[float]) -> int:
    """Which candidate wins: going down the list, one must be quicker than the best so far by the margin.

    >>> pick([10.0, 9.5, 8.0, 7.9])
    2
    """
    best = 0
    for i, ms in enumerate(milliseconds):
        if ms < milliseconds[best] * (1 - MARGIN):
            best = i
    return best


def step_milliseconds(model: nn.Module, batches: Batches, recipe: Recipe, loss: Loss, engine: Engine) -> float:
    """Milliseconds of a training step as a run will take it; infinity where memory has no room for one.

    The median of the later half of some steps: the first ones have memory to clear. Model and torch's generators stay
    as they are.
    """
    took = list[float]()
    with _same_randomness(batches.device), threads(engine.threads):
        training, drawn, begun = _twin(model, batches, recipe, loss, engine), _endless(batches), time.perf_counter()
        try:
            while len(took) < FEWEST_STEPS or (len(took) < STEPS and time.perf_counter() - begun < STEPS_SECONDS):
                took.append(_step(training, drawn))
        except NoRoomError:
            return math.inf
    return statistics.median(took[len(took) // 2 :])


def _time(
    model: nn.Module, batches: Batches, recipe: Recipe, loss: Loss, tried: list[Engine], parts: int = 1
) -> list[float]:
    """The least milliseconds of a training step under each engine; infinity where memory has no room for it.

    The batch is taken in so many parts. The model is as before afterwards.
    """
    least = [math.inf] * len(tried)
    # Candidates that differ in threads alone share a copy of the network and its optimiser: a large one has no room for
    # one each.
    twins: dict[tuple[Precision, Layout], Training] = {}
    for engine in tried:
        if (engine.precision, engine.layout) not in twins:
            twins[engine.precision, engine.layout] = _twin(model, batches, recipe, loss, engine, parts)
    drawn, steps = _endless(batches), next(iter(twins.values())).steps
    begun, full, spent = time.perf_counter(), set[int](), 0.0
    for round_ in range(ROUNDS + 1):
        # The first round warms up, and shows which candidates are hopeless: those get no second try.
        few = round_ <= FEWEST_ROUNDS and spent <= SECONDS
        bound = math.inf if round_ < 2 else min(least) * (HOPELESS if few else BEATEN)
        left = [i for i, ms in enumerate(least) if i not in full and ms <= bound]
        if round_ > 1 and len(left) < 2:
            break
        for i in left:
            engine = tried[i]
            try:
                with threads(engine.threads):
                    took = _step(twins[engine.precision, engine.layout], drawn)
            except NoRoomError:
                full.add(i)
                least[i] = math.inf
                continue
            if round_ > 0:
                least[i] = min(least[i], took)
        spent, run = time.perf_counter() - begun, steps * min(least) / 1e3
        close = sum(ms <= BEATEN * min(least) for ms in least) > 1
        long, costly = spent > SECONDS, spent > (CLOSE_SHARE if close else SHARE) * run
        if round_ > 0 and ((long and costly) or (round_ >= FEWEST_ROUNDS and (long or costly))):
            break
    return least


def _same_randomness(device: torch.device) -> AbstractContextManager[None]:
    """Leave torch's generators as they were."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _twin(model: nn.Module, batches: Batches, recipe: Recipe, loss: Loss, engine: Engine, parts: int = 1) -> Training:
    """A copy of the network in training, whose steps change nothing else; its batches are taken in so many parts."""
    placed = place(copy.deepcopy(model), engine, batches.device)
    twin = Training(placed, batches, dataclasses.replace(recipe, engine=engine), loss)
    twin.to_training_mode()
    twin.parts, twin.divisible = parts, False
    return twin


def _endless(batches: Batches) -> Iterator[tuple[torch.Tensor, Target]]:
    """Batches without end, so that the shuffling of an epoch does not count as part of every step."""
    for epoch in itertools.count():
        yield from batches.epoch(epoch)


def _step(training: Training, drawn: Iterator[tuple[torch.Tensor, Target]]) -> float:
    """Milliseconds of one step, drawing the batch included. A step of under 2 ms is repeated up to 5 ms and divided."""
    repeats, begun = 0, time.perf_counter()
    while True:
        x_nhwc, target = next(drawn)
        # Always the run's first step: its rate and its optimiser.
        training.step = 0
        training.take_step(x_nhwc, target)
        repeats += 1
        if x_nhwc.device.type == "cuda":
            torch.cuda.synchronize(x_nhwc.device)
        took = (time.perf_counter() - begun) * 1e3
        if took > 5 or took / repeats >= 2:
            return took / repeats


def _key(recipe: Recipe, batches: Batches, tried: list[Engine]) -> str:
    """What a measurement holds for."""
    device = batches.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    facts = [
        where,
        own_cores(),
        torch.__version__,
        recipe.net,
        recipe.optimisation.optimizer,
        recipe.freeze,
        batches.batch_size,
        list(batches.pixels_nhwc.shape[1:]),
        batches.augment,
        [dataclasses.asdict(engine) for engine in tried],
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _recall(key: str, tried: list[Engine]) -> Measured | None:
    try:
        table = read_json(cache_folder() / "engines.json")[key]
        chosen = next(row for row in table if row["chosen"])
        wanted = (chosen["layout"], chosen["precision"], chosen["threads"])
        engine = next(e for e in tried if (e.layout, e.precision, e.threads) == wanted)
    except (PellucidError, OSError, KeyError, TypeError, StopIteration):
        # Nothing remembered, or a damaged memory: measuring again costs seconds and mends it.
        return None
    return Measured(engine, tuple(table), remembered=True)


def _remember(key: str, table: tuple[dict[str, Any], ...]) -> None:
    path = cache_folder() / "engines.json"
    try:
        known = read_json(path)
    except (PellucidError, OSError):
        known = {}
    try:
        make_folder(path.parent)
        write_json(path, {**(known if isinstance(known, dict) else {}), key: list(table)})
    except PellucidError:
        # A home that cannot be written to costs the next run its memory, not this one its life.
        return

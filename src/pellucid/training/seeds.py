"""One recipe trained with several seeds: what of an accuracy is the recipe's, and what is luck.

The folder of such a set holds a whole run for each seed, `seed-0`, `seed-1`, …, and `seeds.json`, which says what
was to be done and, in the end, what came of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.errors import DataError, UsageError
from pellucid.files import alone_in, clear_unfinished, put, put_new, read_json, staged, write_json
from pellucid.recipe import Recipe, settle
from pellucid.scores import spread
from pellucid.training.events import Event, Run
from pellucid.training.prepare import name_of
from pellucid.training.processes import several, size
from pellucid.training.runs import free, resume, run

#: What a set of runs leaves beside them.
SEEDS = "seeds.json"

#: The most runs of a set.
MOST = 1000

#: The figures of val that a set is summed up by.
FIGURES = ("accuracy", "balanced_accuracy", "auc", "loss")


@dataclass(frozen=True)
class Seeding:
    """The next run of a set begins, or is looked at again."""

    seed: int
    number: int
    """From 1."""
    count: int


@dataclass(frozen=True)
class Seeds:
    """A set of runs that differ in their seeds alone, finished or stopped."""

    folder: Path
    seeds: tuple[int, ...]
    """All that were asked for."""
    runs: tuple[Run, ...]
    """In the order of the seeds; of a stopped set only those that came to their end."""
    stopped: bool
    """Whether it was interrupted; `train --resume` goes on."""

    def to_json(self) -> dict[str, Any]:
        """What `train --seeds --json` prints; the scores are those of val.

        The keys: run, stopped, split, seeds (all that were asked for), and for accuracy, balanced_accuracy, auc and
        loss n, mean, sd, low and high (95 % of the mean; None for fewer than two runs, or where a run has no such
        figure); and runs, one object each.
        """
        every = [
            {
                "run": str(one.folder),
                "seed": seed,
                "epoch": one.epoch,
                **{key: value for key, value in one.scores.items() if key not in {"per_class", "confusion"}},
            }
            for seed, one in zip(self.seeds, self.runs, strict=False)
        ]
        return {
            "run": str(self.folder),
            "stopped": self.stopped,
            "split": "val",
            "seeds": list(self.seeds),
            **{figure: _spread([row[figure] for row in every], share=figure != "loss") for figure in FIGURES},
            "runs": every,
        }


def run_seeds(
    recipe: Recipe, count: int, *, out: str | Path | None = None, measure: bool = False, **options: Any
) -> Iterator[Event | Seeding | Seeds]:
    """Train `count` times, with the recipe's seed and those after it; the last event is the `Seeds`.

    `out` is the folder of the set, by default the next free `runs/<data>-<net>-<n>`. What the first run settles (the
    engine, and a rate that is to be found) holds for all, so that nothing but the seed differs. `options` are those of
    `pellucid.training.run`, but for a model, which a second run would find trained. An interrupt stops the run in
    hand, which saves, and the set with it.

    Raises UsageError for fewer than two runs, and what `run` raises.
    """
    if not 2 <= count <= MOST:
        raise UsageError(f"--seeds {count}: expected a whole number from 2 to {MOST}; one seed is given by --seed")
    _refuse_processes()
    if options.get("model") is not None:
        raise UsageError(
            "--seeds: a network of your own is trained in place, so its second run would go on; train once"
        )
    seeds = range(recipe.seed, recipe.seed + count)
    settle(recipe, seed=seeds[-1])  # refused now, not after hours
    where = None if out is None else free(Path(out))

    made: list[Path] = []

    def first(finished: Recipe) -> Path:
        with staged("runs" if where is None else where.parent) as folder:
            write_json(folder / SEEDS, {"recipe": finished.to_json(), "seeds": list(seeds), "stopped": True})
            made.append(put_new(folder, name_of(finished)) if where is None else put(folder, where))
        return made[0] / _name(seeds[0])

    yield Seeding(seeds[0], 1, count)
    result = None
    for event in run(recipe, out=first, measure=measure, **options):
        yield event
        result = event if isinstance(event, Run) else result
    assert result is not None
    yield from _go_on(made[0], options, result)


def resume_seeds(folder: str | Path, **options: Any) -> Iterator[Event | Seeding | Seeds]:
    """Go on with a set that was stopped: finished runs stand, the one in hand is resumed, the others begin.

    A finished set is left as it is. `options` as for `run_seeds`. Raises DataError for a folder that holds no set, and
    what `resume` and `run` raise.
    """
    _refuse_processes()
    with alone_in(folder):
        # Not in the folders of its runs: somebody may go on with one of them alone.
        clear_unfinished(folder, below=False)
        yield from _go_on(Path(folder), options)


def is_set(folder: str | Path) -> bool:
    """Whether a folder is that of several runs, and not of one."""
    return (Path(folder) / SEEDS).is_file()


def _refuse_processes() -> None:
    if several():
        raise UsageError(
            f"--seeds: a set of runs is trained by one process, and there are {size()}; leave torchrun away, or train "
            "each seed by itself with --seed"
        )


def _go_on(folder: Path, options: Mapping[str, Any], first: Run | None = None) -> Iterator[Event | Seeding | Seeds]:
    """The runs of a set in their order, those done already included; `first` is the first one's, where just trained."""
    recipe, seeds = _read(folder)
    done: list[Run] = []
    for number, seed in enumerate(seeds, 1):
        result = first if number == 1 else None
        if result is None:
            yield Seeding(seed, number, len(seeds))
            for event in _one(folder / _name(seed), settle(recipe, seed=seed), options):
                yield event
                result = event if isinstance(event, Run) else result
        assert result is not None
        if result.stopped:
            break
        done.append(result)
    found = Seeds(folder, tuple(seeds), tuple(done), stopped=len(done) < len(seeds))
    write_json(folder / SEEDS, {"recipe": recipe.to_json(), **found.to_json()})
    yield found


def _one(folder: Path, recipe: Recipe, options: Mapping[str, Any]) -> Iterator[Event]:
    """A run of a set: gone on with, where it has begun."""
    if (folder / "recipe.json").is_file():
        return resume(folder, every=options.get("every"), profile=options.get("profile", False))
    # A run has its folder whole or not at all; what a kill left of it on the way is under another name.
    return run(recipe, out=lambda _: folder, **options)


def _read(folder: Path) -> tuple[Recipe, list[int]]:
    values = read_json(folder / SEEDS)
    try:
        seeds = [int(seed) for seed in values["seeds"]]
        recipe = values["recipe"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder / SEEDS}: says not which seeds of which recipe ({error!r:.99}); train anew"
        ) from error
    return Recipe.from_json(recipe, str(folder / SEEDS)), seeds


def _name(seed: int) -> str:
    return f"seed-{seed}"


def _spread(values: Sequence[float | None], *, share: bool) -> dict[str, float | int] | None:
    """Mean and spread of a figure; of a share, an interval within 0 and 1."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(known) < 2:
        return None
    found = spread(known)
    return {**found, "low": max(0.0, found["low"]), "high": min(1.0, found["high"])} if share else found

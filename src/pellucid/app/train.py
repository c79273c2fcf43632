"""`pellucid train`."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pellucid.app.cli import INTERRUPTED
from pellucid.app.flags import Train
from pellucid.app.show import Show
from pellucid.errors import UsageError
from pellucid.recipe import to_toml
from pellucid.training import Event, Run, Seeding, Seeds, is_set, resume, resume_seeds, run, run_seeds
from pellucid.training.pictures import Terms


def main(options: Train) -> int:
    """Train, or go on with a run, and show it; 130 when it was interrupted (and has saved)."""
    if options.show_recipe:
        print(to_toml(options.the_recipe()), end="")
        return 0
    if options.resume:
        _refuse_another_beginning(options)
    result: Run | Seeds | None = None
    with Show(to_stderr=options.json) as show:
        for event in _events(options):
            show.event(event)
            # Of several runs the last event is the whole set's.
            if isinstance(event, (Run, Seeds)):
                result = event
    assert result is not None
    if options.json:
        print(json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False))
    return INTERRUPTED if result.stopped else 0


def _events(options: Train) -> Iterator[Event | Seeding | Seeds]:
    """What is to happen: one run or several, new or gone on with."""
    terms = Terms(options.accept, options.max_bad, not options.no_cache)
    every = options.checkpoint_every
    if every is not None and not every >= 0:
        raise UsageError(f"--checkpoint-every {every:g}: expected seconds, 0 or more (0 is after every step)")
    if options.resume:
        if is_set(options.resume):
            return resume_seeds(options.resume, terms=terms, every=every)
        return resume(options.resume, every=every)
    recipe, out = options.the_recipe(), options.out or None
    if options.seeds is not None:
        return run_seeds(recipe, options.seeds, out=out, measure=options.measure, terms=terms, every=every)
    return run(recipe, out=out, measure=options.measure, terms=terms, every=every)


def _refuse_another_beginning(options: Train) -> None:
    """A run that goes on has begun already, and its recipe stands in its folder."""
    if options.seeds is not None:
        raise UsageError(
            f"--seeds {options.seeds} does not go with --resume, which follows what {options.resume} was begun with; "
            "leave --seeds away"
        )
    given = {
        "--weights": options.weights,
        "--freeze": options.freeze,
        "--head": options.head,
        "--lr-decay-by-depth": options.optimisation.lr_decay_by_depth,
    }
    for flag, value in given.items():
        if value is not None:
            raise UsageError(
                f"{flag} {value} does not go with --resume, which follows {options.resume}'s own recipe; leave {flag} "
                f"away, or begin a new run with --weights {options.resume}"
            )

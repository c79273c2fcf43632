"""`pellucid train`."""

from __future__ import annotations

import json

from pellucid.app.cli import INTERRUPTED
from pellucid.app.flags import Train
from pellucid.app.show import Show
from pellucid.errors import UsageError
from pellucid.recipe import to_toml
from pellucid.training import Run, resume, run
from pellucid.training.pictures import Terms


def main(options: Train) -> int:
    """Train, or go on with a run, and show it; 130 when it was interrupted (and has saved)."""
    if options.show_recipe:
        print(to_toml(options.the_recipe()), end="")
        return 0
    if options.resume:
        _refuse_another_beginning(options)
    events = (
        resume(options.resume)
        if options.resume
        else run(
            options.the_recipe(),
            out=options.out or None,
            measure=options.measure,
            terms=Terms(options.accept, options.max_bad, not options.no_cache),
        )
    )
    result: Run | None = None
    with Show(to_stderr=options.json) as show:
        for event in events:
            show.event(event)
            if isinstance(event, Run):
                result = event
    assert result is not None
    if options.json:
        print(json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False))
    return INTERRUPTED if result.stopped else 0


def _refuse_another_beginning(options: Train) -> None:
    """A run that goes on has begun already, and its recipe stands in its folder."""
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

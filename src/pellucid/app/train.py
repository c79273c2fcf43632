"""`pellucid train`."""

from __future__ import annotations

import json

from pellucid.app.cli import INTERRUPTED
from pellucid.app.flags import Train
from pellucid.app.show import Show
from pellucid.recipe import to_toml
from pellucid.training import Run, resume, run
from pellucid.training.pictures import Terms


def main(options: Train) -> int:
    """Train, or go on with a run, and show it; 130 when it was interrupted (and has saved)."""
    if options.show_recipe:
        print(to_toml(options.the_recipe()), end="")
        return 0
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

"""Classes of which one has many times the pictures of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from pellucid.recipe import Recipe

#: The ratio of the largest class to the smallest above which a run is told what can be done about it.
RATIO = 5


def lopsided(counts: Mapping[str, int]) -> bool:
    """Whether the largest class has more than five times the pictures of the smallest that has any.

    >>> lopsided({"daisy": 50, "rose": 10, "tulip": 0}), lopsided({"daisy": 51, "rose": 10})
    (False, True)
    """
    present = [count for count in counts.values() if count]
    return bool(present) and max(present) > RATIO * min(present)


def suggestion(recipe: Recipe, labels: Iterable[str]) -> tuple[str, ...]:
    """What to say about lopsided classes, from the name of each training picture's class; empty where nothing.

    A recipe that balances them has been told.
    """
    counts = Counter(labels)
    if not lopsided(counts) or recipe.optimisation.balance != "none" or recipe.head is not None:
        return ()
    # Ties by name, so that the sentence is the same however the pictures are ordered.
    most = min(counts, key=lambda name: (-counts[name], name))
    least = min(counts, key=lambda name: (counts[name], name))
    return (
        f"lopsided: {most} has {counts[most]:,} training pictures, {least} {counts[least]:,}; --balance sample draws "
        "each class equally often, --balance weights lets a rare one count for more; look at the balanced accuracy",
    )

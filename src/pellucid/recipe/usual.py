"""What a recipe leaves open, chosen by rule."""

from __future__ import annotations

import math

from pellucid.recipe.settings import Recipe

#: Networks so deep and plain that the usual rates throw them off in their first steps.
PLAIN = ("vgg", "googlenet-paper")


def usual_rate(recipe: Recipe) -> float:
    """The learning rate given, else the (first) optimiser's usual one; a tenth of it for deep plain networks.

    A rate that is still to be found counts as none.
    """
    plain = recipe.optimisation.lr in {None, "find"} and recipe.net.startswith(PLAIN)
    return recipe.optimisation.rate * (0.1 if plain else 1.0)


def usual_epochs(pictures: int) -> int:
    """Epochs for so many training pictures: some ten thousand looks, within 10 to 40 epochs."""
    return min(40, max(10, math.ceil(10_000 / pictures)))


def usual_batch_size(pictures: int) -> int:
    """Pictures a step for so many training pictures: 128, but about ten steps an epoch where there are few."""
    return min(128, max(16, 1 << int(math.log2(max(1, pictures / 10)))))

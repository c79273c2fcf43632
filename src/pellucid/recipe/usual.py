"""What a recipe leaves open, chosen by rule."""

from __future__ import annotations

import math

from pellucid.recipe.settings import Recipe

#: Networks so deep and plain that the usual rates throw them off in their first steps.
PLAIN = ("vgg", "googlenet-paper")
#: The batch beyond which the rate of `quick` grows no more.
MOST = 512


#: The learning rate of `quick` under Nesterov's momentum for each picture of a batch, and the rate of its shifts times
#: that of its weights. Found on val of CIFAR-10 and of small sets of photographs.
QUICK_RATE, QUICK_BIAS_RATE = 0.002, 16.0
#: The optimisers whose steps are as long as the gradient is large, so that a higher rate of the shifts means something.
_PROPORTIONAL = ("sgd", "momentum", "nesterov")


def usual_rate(recipe: Recipe, batch_size: int | None = None) -> float:
    """The learning rate given, else the (first) optimiser's usual one; a tenth of it for deep plain networks.

    Of `quick`, in batches of that size, it grows with them. A rate that is still to be found counts as none.
    """
    given = recipe.optimisation.lr not in {None, "find"}
    if not given and _is_quick(recipe) and batch_size and recipe.optimisation.stages[0].optimizer == "nesterov":
        return QUICK_RATE * min(batch_size, MOST)
    plain = not given and recipe.net.startswith(PLAIN)
    return recipe.optimisation.rate * (0.1 if plain else 1.0)


def usual_bias_rate(recipe: Recipe) -> float:
    """The rate of the normalisations' shifts, times that of the weights: as given, else by the network."""
    if recipe.optimisation.bias_rate is not None:
        return recipe.optimisation.bias_rate
    # Trained weights are moved gently, their shifts too.
    fresh = _is_quick(recipe) and recipe.weights is None
    return QUICK_BIAS_RATE if fresh and recipe.optimisation.stages[0].optimizer in _PROPORTIONAL else 1.0


def _is_quick(recipe: Recipe) -> bool:
    return recipe.net.partition("(")[0].strip() == "quick"


def usual_epochs(pictures: int) -> int:
    """Epochs for so many training pictures: some ten thousand looks, within 10 to 40 epochs."""
    return min(40, max(10, math.ceil(10_000 / pictures)))


def usual_batch_size(pictures: int) -> int:
    """Pictures a step for so many training pictures: 128, but about ten steps an epoch where there are few."""
    return min(128, max(16, 1 << int(math.log2(max(1, pictures / 10)))))

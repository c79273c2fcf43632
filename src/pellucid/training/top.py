"""A head on top of a trained network: fitted on the features of its training pictures, once the network is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pellucid.bundle.head import attach, features, fit_head
from pellucid.bundle.recogniser import Recogniser
from pellucid.data.load import Shown
from pellucid.recipe import Recipe


def put_on_head(recogniser: Recogniser, recipe: Recipe, train: Shown, scores: Mapping[str, Any]) -> tuple[str, ...]:
    """Fit the recipe's head on features of the training pictures, unchanged, and attach it to the network, in place.

    `scores` are the network's own on val. Returns what a reader should know. Raises DataError for features that are no
    numbers, PellucidError where the head finds no solution.
    """
    assert recipe.head is not None
    features_nd = features(recogniser.model, recogniser.preprocess, train.pixels)
    attach(
        recogniser.model,
        fit_head(recipe.head, features_nd, train.labels, recipe.seed, classes=len(recogniser.classes)),
    )
    pictures, length = features_nd.shape
    said = f"--head {recipe.head}: fitted on {length:,} features of each of the {pictures:,} training pictures"
    if recipe.head_alone:
        # The last layer may be one that has learnt nothing yet, and no standard to measure by.
        return (said,)
    between = f"(95 % interval {scores['accuracy_low']:.3f} to {scores['accuracy_high']:.3f})"
    return (f"{said}; the network's own last layer has accuracy {scores['accuracy']:.3f} on val {between}",)

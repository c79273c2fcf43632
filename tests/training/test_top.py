from __future__ import annotations

import numpy as np
import pytest

from pellucid import nets
from pellucid.bundle.head import features, head_of
from pellucid.bundle.recogniser import Recogniser, infer
from pellucid.data.load import Shown, load
from pellucid.data.named import open_named
from pellucid.data.preprocess import Preprocess
from pellucid.recipe import Recipe, settle
from pellucid.training.top import put_on_head

PREPROCESS = Preprocess((8, 8), "crop", 1, (0.3,), (0.35,))


QUARTER = {"accuracy": 0.25, "accuracy_low": 0.15, "accuracy_high": 0.38}


@pytest.fixture(scope="module")
def train() -> Shown:
    images = open_named("digits", fetch=False).splits["train"]
    return load(images.take(np.arange(0, len(images), 5)), PREPROCESS)


def untrained() -> Recogniser:
    model = nets.build("quick(32)", 10, (1, 8, 8), seed=0).eval()
    return Recogniser(model, tuple("0123456789"), PREPROCESS, "quick(32)")


@pytest.mark.parametrize("kind", ["svm", "tree", "forest", "knn"])
def test_the_head_of_the_recipe_is_fitted_on_the_training_pictures(kind: str, train: Shown) -> None:
    recogniser = untrained()
    before = infer(recogniser.model, PREPROCESS, train.pixels)
    notes = put_on_head(recogniser, settle(Recipe(), head=kind, seed=3), train, QUARTER)
    head = head_of(recogniser.model)
    assert head is not None
    assert (head.kind, head.seed, head.classes) == (kind, 3, 10)
    after = infer(recogniser.model, PREPROCESS, train.pixels)
    assert (before.argmax(1) == train.labels).mean() < 0.3
    # Even of random features a head makes something, on the very pictures it was fitted on.
    assert (after.argmax(1) == train.labels).mean() > 0.8
    assert len(notes) == 1
    assert f"--head {kind}: fitted on 128 features of each of the {len(train.labels):,} training pictures" in notes[0]
    assert notes[0].endswith("own last layer has accuracy 0.250 on val (95 % interval 0.150 to 0.380)")


def test_the_layers_below_are_left_alone(train: Shown) -> None:
    recogniser = untrained()
    before = features(recogniser.model, PREPROCESS, train.pixels)
    put_on_head(recogniser, settle(Recipe(), head="tree"), train, QUARTER)
    assert np.array_equal(features(recogniser.model, PREPROCESS, train.pixels), before)


def test_a_last_layer_that_learnt_nothing_is_not_compared_with(train: Shown) -> None:
    notes = put_on_head(untrained(), settle(Recipe(), head="tree", weights="w"), train, QUARTER)
    assert "0.250" not in notes[0]

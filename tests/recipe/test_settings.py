from __future__ import annotations

import dataclasses
import json
import tomllib
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import UsageError
from pellucid.recipe import LEARNING_RATES, PRESETS, Monitor, Optimizer, Recipe, Schedule, settle, to_toml

recipes = st.builds(
    lambda changes: settle(Recipe(data="x"), **changes),
    st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.integers(1, 1000),
            "batch_size": st.none() | st.just("all") | st.integers(1, 4096),
            "lr": st.none() | st.just("find") | st.floats(1e-6, 10),
            "schedule": st.sampled_from([*get_args(Schedule), "step@3"]),
            "init": st.none() | st.just("he"),
            "optimizer": st.sampled_from([*get_args(Optimizer), "adam+sgd@0.6"]),
            "ema": st.none() | st.floats(0.01, 0.999),
            "patience": st.none() | st.integers(1, 50),
            "monitor": st.sampled_from(get_args(Monitor)),
            "size": st.none() | st.integers(1, 512),
            "augment": st.none() | st.lists(st.sampled_from(["flip", "shift"]), unique=True),
            "sample": st.floats(0.001, 1),
            "seed": st.integers(0, 2**32 - 1),
            "freeze": st.none() | st.just("head") | st.integers(0, 50),
            "lr_decay_by_depth": st.none() | st.floats(0.01, 1),
            "weights": st.none() | st.text(),
            "precision": st.sampled_from(["auto", "float32", "bfloat16", "float64"]),
        },
    ).filter(lambda changes: changes.get("init") is None or changes.get("weights") is None),
)


@given(recipes)
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_settings_are_flat_and_no_two_share_a_name() -> None:
    names = [
        inner.name
        for outer in dataclasses.fields(Recipe)
        for inner in (
            dataclasses.fields(outer.default_factory()) if outer.default_factory is not dataclasses.MISSING else [outer]
        )
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"lr": -1.0}, "--lr -1: a learning rate is above 0; a usual one for nesterov is 0.05"),
        ({"lr": float("nan")}, "--lr nan"),
        ({"optimizer": "adma"}, "did you mean 'adam'?"),
        ({"lr": "fnid"}, "did you mean 'find'?"),
        ({"schedule": "cosin"}, "--schedule 'cosin' is not known: did you mean 'cosine'?"),
        ({"schedule": "cosine@3"}, "@ stands behind step, with the epochs after which the rate is halved"),
        ({"schedule": "step@0"}, "as in step@5"),
        ({"schedule": "step@1.5"}, "as in step@5"),
        ({"normalise": "dta"}, "did you mean 'data'?"),
        ({"teacher": "run", "loss": "mse"}, "--teacher goes with --loss cross-entropy, not mse: leave one away"),
        ({"teacher": "run", "loss": "custom"}, "--teacher goes with --loss cross-entropy, not custom"),
        ({"epochs": 0}, "--epochs 0: expected a whole number from 1"),
        ({"epochs": 1.5}, "epochs: expected int, found 1.5"),
        ({"epochs": True}, "epochs: expected int, found True"),
        ({"batch_size": -4}, "--batch-size -4"),
        ({"batch_size": "al"}, "did you mean 'all'?"),
        ({"batch_size": 2.5}, "batch_size: expected int, found 2.5"),
        ({"optimizer": "adam+sgd"}, "between 0 and 1, as in adam+sgd@0.6"),
        ({"optimizer": "adam+sgd@1.5"}, "between 0 and 1, as in adam+sgd@0.6"),
        ({"optimizer": "adam+sdg@0.5"}, "did you mean 'sgd'?"),
        ({"ema": 1.0}, "--ema 1: expected a number above 0 and below 1"),
        ({"clip_norm": 0.0}, "--clip-norm 0: expected a number above 0"),
        ({"patience": 0}, "--patience 0"),
        ({"loss": "mse", "balance": "weights"}, "--balance weights weighs cross-entropy or focal, not --loss mse"),
        ({"loss": "mse", "balance": "weights"}, "--balance sample goes with any loss"),
        ({"balance": "sampel"}, "did you mean 'sample'?"),
        ({"head": "svm", "balance": "sample"}, "--balance sample does not reach --head svm"),
        ({"loss": "focal", "label_smoothing": 0.1}, "--label-smoothing goes with --loss cross-entropy, not focal"),
        ({"sample": 0.0}, "--sample 0: expected a number above 0 and up to 1"),
        ({"val": 1.0}, "--val 1: expected a number above 0 and below 1"),
        ({"size": 0}, "--size 0"),
        ({"net": "lenet"}, "did you mean 'lenet5'?"),
        ({"siz": 3}, "'siz' is no setting of a recipe: did you mean 'size'?"),
        ({"loss": "mse", "label_smoothing": 0.1}, "--label-smoothing goes with --loss cross-entropy"),
        ({"augment": ["flipp"]}, "did you mean 'flip'?"),
        ({"seed": -1}, "--seed -1"),
        ({"freeze": -1}, "--freeze -1: expected a whole number from 0"),
        ({"freeze": "haed"}, "did you mean 'head'?"),
        ({"lr_decay_by_depth": 0.0}, "--lr-decay-by-depth 0: expected a number above 0 and up to 1"),
        ({"lr_decay_by_depth": 1.5}, "--lr-decay-by-depth 1.5: expected a number above 0 and up to 1"),
        ({"lr_decay_by_depth": float("nan")}, "--lr-decay-by-depth nan"),
        ({"head": 3}, "--head 3 is not known: known are: svm"),
        ({"head": "smv"}, "--head 'smv' is not known: did you mean 'svm'?"),
        ({"head": "svm", "freeze": 0}, "--head svm passes no gradient on, so --freeze 0 has nothing to fine-tune"),
        ({"head": "svm", "freeze": "head"}, "leave --freeze away, or fine-tune without --head first"),
        ({"head": "knn", "lr_decay_by_depth": 0.8}, "then train with --weights RUN --head knn"),
        ({"head": "svm", "weights": "w", "epochs": 3}, "so --epochs 3 has nothing to fine-tune"),
        ({"head": "svm", "weights": "w", "lr": 0.1}, "so --lr 0.1 has nothing to fine-tune"),
        ({"head": "svm", "weights": "w", "patience": 3}, "so --patience 3 has nothing to fine-tune"),
        ({"threads": -1}, "--threads -1"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        settle(Recipe(), **settings)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([], "expected an object"),
        ({"optimisation": 3}, "expected an object"),
        ({"nett": "quick"}, "'nett' is no setting here: did you mean 'net'?"),
        ({"optimisation": {"epoch": 3}}, "did you mean 'epochs'?"),
    ],
)
def test_a_recipe_file_that_makes_no_sense_is_refused(values: object, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe.from_json(values, "my.json")
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("my.json")


def test_every_optimiser_has_a_usual_rate() -> None:
    assert set(LEARNING_RATES) == set(get_args(Optimizer))


def test_the_keras_preset_is_the_keras_example() -> None:
    recipe = PRESETS["keras-cifar"].optimisation
    assert (recipe.optimizer, recipe.batch_size, recipe.epochs, recipe.rate) == ("rmsprop", 32, 5, 0.001)
    assert recipe.schedule == "constant"
    assert recipe.init == "xavier"
    assert PRESETS["keras-cifar"].regularisation.weight_decay == 0
    assert PRESETS["keras-cifar"].pictures.augment == ()
    assert PRESETS["keras-cifar"].pictures.normalise == "unit"


def test_the_resnet_preset_takes_the_papers_steps() -> None:
    optimisation = PRESETS["resnet-cifar"].optimisation
    # 64,000 steps of 128 over 45,000 pictures, "divided by 10 at 32k and 48k".
    assert optimisation.epochs is not None
    assert optimisation.epochs * -(-45_000 // 128) == pytest.approx(64_000, rel=0.002)
    assert (optimisation.optimizer, optimisation.rate, optimisation.shape) == ("momentum", 0.1, "tenths")
    assert PRESETS["resnet-cifar"].regularisation.weight_decay == 1e-4


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_recipe_file_one_can_edit(name: str) -> None:
    written = tomllib.loads(to_toml(PRESETS[name]))
    assert Recipe.from_json(written) == PRESETS[name]


def test_step_may_name_its_epochs() -> None:
    assert settle(Recipe(), schedule="step@5").optimisation.halving == 5
    assert settle(Recipe(), schedule="step").optimisation.halving is None


def test_a_head_is_trained_without_fine_tuning_or_alone_on_weights_given() -> None:
    assert not settle(Recipe(), head="svm", epochs=3).head_alone
    assert settle(Recipe(), head="svm", weights="w").head_alone
    assert not settle(Recipe(), weights="w", epochs=3).head_alone


def test_the_preset_for_fine_tuning_is_gentler_than_the_default() -> None:
    recipe = PRESETS["finetune"]
    assert recipe.optimisation.rate < Recipe().optimisation.rate
    assert recipe.optimisation.lr_decay_by_depth is not None
    assert recipe.net == Recipe().net  # so that the weights say which it is


def test_first_weights_are_drawn_or_brought_and_a_head_alone_is_taught_by_nobody() -> None:
    with pytest.raises(UsageError, match="--init he draws first weights, and --weights w brings trained ones"):
        settle(Recipe(), init="he", weights="w")
    with pytest.raises(UsageError, match="--head svm passes no gradient on, so --teacher t has nothing"):
        settle(Recipe(), head="svm", weights="w", teacher="t")

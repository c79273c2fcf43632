"""Recipes by name, and recipes with something changed."""

from __future__ import annotations

import dataclasses
from typing import Any

from pellucid.errors import UsageError, did_you_mean
from pellucid.recipe.settings import Optimisation, Pictures, Recipe, Regularisation

#: Recipes by name, each a change to the defaults above; `--preset` starts from one.
PRESETS: dict[str, Recipe] = {
    "quick": Recipe(),
    # Weights trained elsewhere, moved gently, and the less the lower they lie (Howard and Ruder 2018). The epochs are
    # left to the number of pictures: ten, of a few dozen, are too few steps to get anywhere.
    "finetune": Recipe(
        pictures=Pictures(augment=("flip", "crop")),
        optimisation=Optimisation(lr=0.01, lr_decay_by_depth=0.8),
    ),
    # The Keras example's network, numbers from 0 to 1, Glorot's weights, batch, optimiser and five epochs. It trains on
    # every picture; here few are held out.
    "keras-cifar": Recipe(
        net="cifar-cnn",
        pictures=Pictures(augment=(), normalise="unit", val=0.02),
        optimisation=Optimisation(
            init="xavier", epochs=5, batch_size=32, optimizer="rmsprop", lr=0.001, schedule="constant"
        ),
        regularisation=Regularisation(weight_decay=0.0),
    ),
    # Squared errors, twenty epochs and a falling rate, as LeCun et al. 1998; docs/networks.md says what is different.
    "lecun98": Recipe(
        net="lenet5",
        pictures=Pictures(augment=()),
        optimisation=Optimisation(epochs=20, batch_size=16, optimizer="sgd", lr=0.1, schedule="step", loss="mse"),
        regularisation=Regularisation(weight_decay=0.0),
    ),
    # He et al. 2015, section 4.2: 64,000 steps over 45,000 pictures.
    "resnet-cifar": Recipe(
        net="resnet20",
        pictures=Pictures(augment=("flip", "shift")),
        optimisation=Optimisation(epochs=182, batch_size=128, optimizer="momentum", lr=0.1, schedule="tenths"),
        regularisation=Regularisation(weight_decay=1e-4),
    ),
    # Deep in layers and in time, so with a bound on the gradient (Pascanu et al. 2013).
    "lstm-rows": Recipe(
        net="lstm(units=128, layers=5, uniform=0.1)",
        pictures=Pictures(augment=()),
        optimisation=Optimisation(optimizer="adam", lr=0.003),
        regularisation=Regularisation(weight_decay=0.0, clip_norm=1.0),
    ),
}


def settle(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with flat settings changed, whichever dataclass each lives in: `settle(recipe, lr=0.1, size=64)`.

    Raises UsageError for a setting no dataclass has.
    """
    parts: dict[str, Any] = {}
    top: dict[str, Any] = {}
    for name, value in changes.items():
        home = _HOMES.get(name)
        if home is None:
            raise UsageError(f"{name!r} is no setting of a recipe: {did_you_mean(name, _HOMES)}")
        if home == "":
            top[name] = value
        else:
            parts.setdefault(home, {})[name] = value
    for home, values in parts.items():
        top[home] = dataclasses.replace(getattr(recipe, home), **values)
    # Through JSON, so that a wrong type is refused here as it is in a file.
    return Recipe.from_json(dataclasses.replace(recipe, **top).to_json(), "setting")


def _homes() -> dict[str, str]:
    homes = {}
    for outer in dataclasses.fields(Recipe):
        if outer.default_factory is not dataclasses.MISSING:
            homes.update({inner.name: outer.name for inner in dataclasses.fields(outer.default_factory())})
        else:
            homes[outer.name] = ""
    return homes


_HOMES = _homes()

"""Where a network begins when its weights were trained elsewhere: which network, shown what, and what is held still."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import nn

from pellucid.bundle.fit import fit_weights, input_channels, network_of
from pellucid.bundle.weights import Published, imagenet_preprocess
from pellucid.data.preprocess import Preprocess
from pellucid.errors import DataError, UsageError
from pellucid.recipe import Recipe, settle
from pellucid.training.finetune import freeze, units


def follow(recipe: Recipe, published: Published, size: tuple[int, int]) -> Recipe:
    """The recipe with the network that the weights are of, unless it names one other than the default.

    Where nobody says which that is, it is looked for among the named networks, for images of that height and width.
    """
    if recipe.net != Recipe().net:
        return recipe
    net = published.network or network_of(published.tensors, size)
    return recipe if net is None else settle(recipe, net=net)


def colours(model: nn.Module, published: Published) -> int | None:
    """How many channels the pictures have that the weights are for; None where nothing tells."""
    shown = published.preprocess
    return input_channels(model, published.tensors) if shown is None else shown.channels


def normalised(preprocess: Preprocess, published: Published, channels: int | None) -> Preprocess | None:
    """The preprocessing with the mean and deviation that the weights were trained with.

    A run's own; ImageNet's for colour pictures and weights of which nobody says. None for grey ones of which nobody
    says, and where `channels`, those of the weights' pictures, are unknown: then they stay to be found in the pictures.
    """
    if channels != preprocess.channels:
        return None
    shown = published.preprocess
    if shown is not None:
        return dataclasses.replace(preprocess, mean=shown.mean, std=shown.std)
    return imagenet_preprocess(preprocess.size, preprocess.resize) if channels == 3 else None


def begin(model: nn.Module, recipe: Recipe, published: Published | None, classes: Sequence[str]) -> tuple[str, ...]:
    """Put the weights into the network and hold still what the recipe freezes; returns what a reader should know.

    Raises DataError for weights that do not fit, UsageError for those that are known to be of another network than
    the one asked for, and where nothing would be left to train.
    """
    said = [] if published is None else _fit(model, recipe, published, classes)
    if recipe.freeze is not None:
        freeze(model, recipe.freeze)
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        every = sum(parameter.numel() for parameter in model.parameters())
        what = (
            "all but the classifier"
            if recipe.freeze == "head"
            else f"{recipe.freeze} of {len(units(model))} layers and blocks"
        )
        said.append(f"frozen: {what}; {trained:,} of {every:,} parameters are trained")
    if published is None:
        for flag, value in (
            ("--freeze", recipe.freeze or None),
            ("--lr-decay-by-depth", recipe.optimisation.lr_decay_by_depth),
        ):
            if value is not None:
                said.append(f"{flag} {value} without --weights: the lower layers know nothing yet worth keeping")
    return tuple(said)


def _fit(model: nn.Module, recipe: Recipe, published: Published, classes: Sequence[str]) -> list[str]:
    try:
        fitted = fit_weights(model, published.tensors, classes=classes, known=published.classes)
    except DataError as error:
        shown = published.preprocess
        if published.network == recipe.net and shown is not None:
            height, width = shown.size
            raise UsageError(
                f"--weights {published.origin}: they are of {recipe.net} for pictures of {width}×{height} pixels and "
                f"{shown.channels} channels, and for others it has other layers; leave --size away"
            ) from error
        if published.network is None:
            raise DataError(f"--weights {published.origin}: {error}") from error
        raise UsageError(
            f"--net {recipe.net}: the weights in {published.origin} are of {published.network} and do not fit it; "
            "leave --net away"
        ) from error
    first, *rest = fitted.sentences
    said = [f"begins with the weights of {published.origin} ({recipe.net}): {first}", *rest]
    if published.head:
        said.append(f"the head on top of {published.origin} is left behind: its network's own last layer is taken")
    return said

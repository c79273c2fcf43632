"""From a recipe to what is trained: which pictures, seen how, by which network. Nothing is decoded or written here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import nn

from pellucid import nets
from pellucid.data.preprocess import Preprocess
from pellucid.data.source import Images, Source, Understanding, open_source, understood
from pellucid.data.split import sample, stratified
from pellucid.errors import DataError, UsageError
from pellucid.recipe import Recipe, settle, usual_batch_size, usual_epochs, usual_rate

#: The side that photographs are brought to unless asked otherwise. Smaller pictures are kept as they are.
PHOTOGRAPH = 64


@dataclass(frozen=True)
class Task:
    """All that is to be done, decided: the recipe holds no `None` and the network is known to fit."""

    recipe: Recipe
    source: Source
    understanding: Understanding
    preprocess: Preprocess
    """Its mean and deviation are not known before the pictures are read."""
    train: Images
    val: Images
    val_split_off: bool
    """Whether val was split off the training pictures here."""


def prepare(recipe: Recipe, model: nn.Module | None = None, *, mismatch: bool = False) -> Task:
    """Decide everything a recipe leaves open, by looking at the data.

    `model` is a network of one's own; with `mismatch`, classes that cannot be trained on are left out. Raises DataError
    for data that cannot be trained on, and UsageError (with the corrected line) for a network that does not fit the
    pictures.
    """
    if not recipe.data:
        raise UsageError("DATA is missing: a folder of pictures, or a name such as digits, mnist or cifar10")
    if recipe.net == "custom" and model is None:
        raise UsageError("--net custom: this recipe trained a network of your own; give it to pellucid.train(net=...)")
    source = open_source(recipe.data, mismatch=mismatch)
    understanding = understood(source)
    train, val, split_off = _splits(source, recipe)
    preprocess = geometry(recipe, source, understanding, model)
    height, width = preprocess.size
    image = (preprocess.channels, height, width)
    classes = len(source.classes)
    nets.check(model or nets.build(recipe.net, classes, image, seed=recipe.seed), image, classes)
    augment = recipe.pictures.augment
    recipe = settle(
        recipe,
        data=recipe.data if source.kind == "named" else str(Path(recipe.data).absolute()),
        size=height if height == width else None,
        resize=preprocess.resize,
        augment=(("flip", "shift") if source.flip else ("shift",)) if augment is None else augment,
        lr=usual_rate(recipe),
        epochs=recipe.optimisation.epochs or usual_epochs(len(train)),
        batch_size=recipe.optimisation.batch_size or usual_batch_size(len(train)),
    )
    return Task(recipe, source, understanding, preprocess, train, val, split_off)


def geometry(
    recipe: Recipe, source: Source, understanding: Understanding, model: nn.Module | None = None
) -> Preprocess:
    """How the pictures are shown to the network: all of the preprocessing but mean and deviation."""
    channels, height, width = (None, None, None) if model is not None else nets.input_of(recipe.net)
    if recipe.pictures.size is not None:
        height = width = _agreed(recipe, height, width)
    if height is None or width is None:
        height = width = usual_size(understanding)
    if channels is None:
        channels = understanding.channels
    return Preprocess(
        size=(height, width),
        resize=recipe.pictures.resize or source.resize,
        channels=_grey_or_colour(channels),
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )


def usual_size(understanding: Understanding) -> int:
    """The side a network is shown unless asked otherwise: the pictures' own where they are small.

    The median of the shorter sides, brought down to 64 for photographs.
    """
    return max(1, min(PHOTOGRAPH, *understanding.sizes["median"]))


def name_of(recipe: Recipe) -> str:
    """A run's name: its data and its network."""
    data = Path(recipe.data).stem or "data"
    return f"{data}-{recipe.net if '->' not in recipe.net else 'net'}"


def _grey_or_colour(channels: int) -> Literal[1, 3]:
    if channels == 1:
        return 1
    if channels == 3:
        return 3
    raise UsageError(f"--net: its INPUT has {channels} channels, and pictures have 1 (grey) or 3 (colour)")


def _agreed(recipe: Recipe, height: int | None, width: int | None) -> int:
    size = recipe.pictures.size
    assert size is not None
    for fixed in (height, width):
        if fixed is not None and fixed != size and "->" in recipe.net:
            raise UsageError(
                f"--size {size}: the network's INPUT fixes {width}×{height} pixels; leave --size away, or write INPUT "
                "without a size"
            )
    return size


def _splits(source: Source, recipe: Recipe) -> tuple[Images, Images, bool]:
    if "train" not in source.splits:
        raise DataError(f"{source.place}: has {', '.join(source.splits)} but no train pictures to learn from")
    train, val = source.splits["train"], source.splits.get("val")
    share, seed = recipe.pictures.sample, recipe.seed
    if share < 1:
        train = train.take(sample(train.labels, share, seed))
        val = None if val is None else val.take(sample(val.labels, share, seed))
    if val is not None:
        return train, val, False
    kept, held = stratified(train.labels, recipe.pictures.val, seed)
    if not len(kept) or not len(held):
        raise DataError(
            f"{source.place}: {len(train)} pictures are too few to hold some out for validation; "
            "add pictures (at least two of each class)"
        )
    return train.take(np.asarray(kept)), train.take(np.asarray(held)), True

"""From a recipe to what is trained: which pictures, seen how, by which network. Nothing is decoded or written here."""

from __future__ import annotations

import copy
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from pellucid import nets
from pellucid.bundle.fit import published_net
from pellucid.bundle.head import features
from pellucid.bundle.weights import Published, read_weights
from pellucid.data.preprocess import Preprocess
from pellucid.data.source import Images, Source, Understanding, open_source, understood
from pellucid.data.split import digests, sample, stratified
from pellucid.errors import DataError, UsageError
from pellucid.nets.initialise import read_initialiser
from pellucid.recipe import Recipe, settle, usual_batch_size, usual_bias_rate, usual_epochs, usual_rate
from pellucid.training.distil import Teacher, open_teacher
from pellucid.training.lopsided import suggestion
from pellucid.training.misfits import refuse_misfits
from pellucid.training.pretrained import begin, colours, follow, normalised

#: The side that photographs are brought to unless asked otherwise. Smaller pictures are kept as they are.
PHOTOGRAPH = 64


@dataclass(frozen=True)
class Task:
    """All that is to be done, decided: the recipe holds no `None` and the network is known to fit."""

    recipe: Recipe
    source: Source
    understanding: Understanding
    preprocess: Preprocess
    """Its mean and deviation are not known before the pictures are read, unless they came with weights."""
    train: Images
    val: Images
    val_split_off: bool
    """Whether val was split off the training pictures here."""
    normalised: bool = False
    """Whether mean and deviation came with weights."""
    weights: Published | None = None
    """Those that the network begins with."""
    notes: tuple[str, ...] = ()
    """What came of them, and of what is to be frozen."""
    teacher: Teacher | None = None
    """What else the network learns from."""


def prepare(recipe: Recipe, model: nn.Module | None = None, *, mismatch: bool = False) -> Task:
    """Decide everything a recipe leaves open, by looking at the data.

    `model` is a network of one's own; with `mismatch`, classes that cannot be trained on are left out. Raises DataError
    for data that cannot be trained on and for weights that do not fit, and UsageError (with the corrected line) for a
    network that does not fit the pictures.
    """
    if not recipe.data:
        raise UsageError("DATA is missing: a folder of pictures, or a name such as digits, mnist or cifar10")
    if recipe.net == "custom" and model is None:
        raise UsageError("--net custom: this recipe trained a network of your own; give it to pellucid.train(net=...)")
    if recipe.optimisation.init is not None:
        read_initialiser(recipe.optimisation.init)
    source = open_source(recipe.data, mismatch=mismatch)
    understanding = understood(source)
    published = None if recipe.weights is None else read_weights(recipe.weights)
    seen = set() if published is None else {row.digest for row in published.record if row.split != "val"}
    train, val, split_off = _splits(source, recipe, seen)
    recipe, preprocess, known = _shown(recipe, source, understanding, published, model)
    height, width = preprocess.size
    image = (preprocess.channels, height, width)
    classes = len(source.classes)
    network = model or nets.build(recipe.net, classes, image, seed=recipe.seed)
    nets.check(network, image, classes)
    if network is model and (published is not None or recipe.freeze is not None):
        # Weights are put in already, to be refused before any work; a network of one's own is not touched yet.
        network = copy.deepcopy(network)
    notes = begin(network, recipe, published, source.classes)
    if recipe.head is not None:
        # Features of one black picture: refused here, before any work, where a head cannot stand on this network.
        features(network, preprocess, np.zeros((1, height, width, preprocess.channels), np.uint8))
    known_already = sum(digest in seen for digest in digests(val)) if seen else 0
    if known_already:
        notes += (f"{known_already:,} of the {len(val):,} val pictures were trained on before: val flatters",)
    notes += suggestion(recipe, [source.classes[label] for label in train.labels.tolist()])
    augment = () if recipe.head_alone else recipe.pictures.augment
    batch_size = recipe.optimisation.batch_size or usual_batch_size(len(train))
    rate = usual_rate(recipe, len(train) if batch_size == "all" else batch_size)
    recipe = settle(
        recipe,
        data=recipe.data if source.kind == "named" else str(Path(recipe.data).absolute()),
        size=height if height == width else None,
        resize=preprocess.resize,
        augment=(("flip", "shift") if source.flip else ("shift",)) if augment is None else augment,
        weights=None if published is None else published.pinned,
        lr=None if recipe.head_alone else "find" if recipe.optimisation.lr == "find" else rate,
        bias_rate=None if recipe.head_alone else usual_bias_rate(recipe),
        epochs=_epochs(recipe, len(train)),
        batch_size=batch_size,
    )
    if not recipe.head_alone and recipe.optimisation.budget is None:
        refuse_misfits(recipe, len(train))
    teacher = None
    if recipe.regularisation.teacher is not None:
        teacher = open_teacher(recipe.regularisation.teacher, source.classes, preprocess)
        recipe = settle(recipe, teacher=str(Path(recipe.regularisation.teacher).absolute()))
    return Task(
        recipe, source, understanding, preprocess, train, val, split_off, known,
        weights=published, notes=notes, teacher=teacher,
    )  # fmt: skip


def geometry(
    recipe: Recipe, source: Source, understanding: Understanding, model: nn.Module | None = None
) -> Preprocess:
    """How the pictures are shown to the network: all of the preprocessing but mean and deviation."""
    return _shown(recipe, source, understanding, None, model)[1]


def usual_size(understanding: Understanding) -> int:
    """The side a network is shown unless asked otherwise: the pictures' own where they are small.

    The median of the shorter sides, brought down to 64 for photographs.
    """
    return max(1, min(PHOTOGRAPH, *understanding.sizes["median"]))


def _shown(
    recipe: Recipe,
    source: Source,
    understanding: Understanding,
    published: Published | None,
    model: nn.Module | None,
) -> tuple[Recipe, Preprocess, bool]:
    """The recipe with its network, what that is shown, and whether mean and deviation are known.

    What is given stands, then what the network fixes, then what the weights were shown, then what the pictures are.
    """
    side, shown = usual_size(understanding), None if published is None else published.preprocess
    usual = (side, side) if shown is None else shown.size
    if published is not None and model is None:
        given = recipe.pictures.size
        recipe = follow(recipe, published, usual if given is None else (given, given))
    channels, height, width = (None, None, None) if model is not None else nets.input_of(recipe.net)
    if recipe.pictures.size is not None:
        height = width = _agreed(recipe, height, width)
    if height is None or width is None:
        height, width = usual
    theirs: int | None = None
    if published is not None:
        # Without memory for weights: the first layer's name and shape are asked for, and no more.
        with torch.device("meta"):
            image = (channels or understanding.channels, height, width)
            theirs = colours(model or nets.build(recipe.net, len(source.classes), image), published)
    channels = channels or theirs or understanding.channels
    preprocess = Preprocess(
        size=(height, width),
        resize=recipe.pictures.resize or (source.resize if shown is None else shown.resize),
        channels=_grey_or_colour(channels),
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )
    known = None if published is None else normalised(preprocess, published, theirs)
    if known is None:
        return recipe, preprocess, False
    # Published weights of GoogLeNet bring ImageNet's normalisation to one of their own.
    return (recipe if shown is not None else settle(recipe, net=published_net(recipe.net))), known, True


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


def _epochs(recipe: Recipe, pictures: int) -> int | None:
    """The epochs given, else the usual ones; None where they are still to be found, or there are none."""
    if recipe.head_alone or recipe.optimisation.budget is not None:
        return None
    return recipe.optimisation.epochs or usual_epochs(pictures)


def _splits(source: Source, recipe: Recipe, seen: Set[str] = frozenset()) -> tuple[Images, Images, bool]:
    """Train, val, and whether val was split off here; as far as possible not from pictures whose digests are seen."""
    if "train" not in source.splits:
        raise DataError(f"{source.place}: has {', '.join(source.splits)} but no train pictures to learn from")
    train, val = source.splits["train"], source.splits.get("val")
    share, seed = recipe.pictures.sample, recipe.seed
    if share < 1:
        train = train.take(sample(train.labels, share, seed))
        val = None if val is None else val.take(sample(val.labels, share, seed))
    if val is not None:
        return train, val, False
    seen_n = np.array([digest in seen for digest in digests(train)]) if seen else None
    kept, held = stratified(train.labels, recipe.pictures.val, seed, seen=seen_n)
    if not len(kept) or not len(held):
        raise DataError(
            f"{source.place}: {len(train)} pictures are too few to hold some out for validation; "
            "add pictures (at least two of each class)"
        )
    return train.take(np.asarray(kept)), train.take(np.asarray(held)), True

"""How good a trained network is on labelled pictures it was not trained on."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.bundle.folder import load
from pellucid.bundle.recogniser import Recogniser, infer
from pellucid.data.images import Images, Source, Split
from pellucid.data.load import load as load_pictures
from pellucid.data.record import read_record
from pellucid.data.source import open_source
from pellucid.data.split import digests
from pellucid.errors import DataError, UsageError, did_you_mean
from pellucid.scores import evaluation


@dataclass(frozen=True)
class Chosen:
    """The pictures to evaluate on, and why these."""

    split: str
    images: Images
    why: str


def evaluate(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    split: str | None = None,
    recogniser: Recogniser | None = None,
) -> dict[str, Any]:
    """Evaluate a run on labelled pictures: `test` if the data has it, else `val`; training pictures only if asked.

    Returns the object that `pellucid eval --json` prints: data, split, n, loss, accuracy, accuracy_low, accuracy_high
    (95 %, Wilson), baseline, balanced_accuracy, balanced_accuracy_low, balanced_accuracy_high, auc, per_class,
    confusion; and `why`, a sentence on the choice of pictures. Labels are matched by name.

    Raises DataError for data that holds no such pictures, or a class that the network does not know.
    """
    recogniser = recogniser or load(os.fspath(run))
    source = open_source(data, training=False)
    chosen = choose_split(source, Path(run), split)
    images = replace(chosen.images, labels=match_labels(source, chosen.images, recogniser.classes))
    loaded = load_pictures(images, recogniser.preprocess)
    logits_nk = infer(recogniser.model, recogniser.preprocess, loaded.pixels)
    scores = evaluation(logits_nk, loaded.labels, recogniser.classes)
    why = chosen.why + "".join(f"; left out {bad}" for bad in loaded.bad)
    return {"data": os.fspath(data), "split": chosen.split, **scores, "why": why}


def match_labels(source: Source, images: Images, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """The labels of `images` as positions in `classes`, matched by name and never by position."""
    place = {name: i for i, name in enumerate(classes)}
    present = sorted({source.classes[i] for i in np.unique(images.labels)})
    for name in present:
        if name not in place:
            raise DataError(
                f"{source.place}: class {name!r} is not one the network was trained on: {did_you_mean(name, classes)} "
                "Rename or move that folder, or train again with it"
            )
    table = np.array([place.get(name, -1) for name in source.classes], dtype=np.int64)
    return table[images.labels]


def choose_split(source: Source, run: Path, asked: str | None) -> Chosen:
    """The pictures of `source` to evaluate `run` on.

    Where the data has splits of its own they are taken at their word. Where it has none, or val was split off train,
    the run's record says which pictures were trained on, whatever they are called now.
    """
    if asked not in {None, "train", "val", "test"}:
        raise UsageError(f"--split {asked!r}: expected train, val or test")
    own: tuple[Split, ...] = ("test", "val")
    for name in own:
        if name in source.splits and asked in {None, name}:
            return Chosen(name, source.splits[name], f"the data's own {name} pictures")
    if "train" not in source.splits:
        raise DataError(f"{source.place}: has no {asked} pictures; it has {', '.join(source.splits)}")
    images = source.splits["train"]
    record = read_record(run)
    if record is None:
        return Chosen(
            "test", images, "all pictures, taken as unseen: no record of the training lies beside this bundle"
        )
    # What the weights were trained on before this run is as little unseen as what they were trained on in it.
    split_of = {row.digest: "train" if row.split == "before" else row.split for row in record}
    found = np.array([split_of.get(digest, "new") for digest in digests(images)])
    if asked is None:
        asked = "test" if (found == "new").any() and not (found == "train").any() else "val"
    wanted = found == ("new" if asked == "test" else asked)
    if not wanted.any():
        raise DataError(_nothing(source, asked, found))
    whys = {
        "train": "the pictures it was trained on",
        "val": "the pictures held out from training",
        "test": "pictures the run has not seen",
    }
    return Chosen(asked, images.take(np.flatnonzero(wanted)), whys[asked])


def _nothing(source: Source, asked: str, found: NDArray[np.str_]) -> str:
    trained = int((found == "train").sum())
    return (
        f"{source.place}: no {asked} pictures: {trained} of its {len(found)} were trained on; "
        "give other pictures, or --split train to look at those all the same"
    )

"""Whether two trained networks differ: both asked about the same pictures."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.bundle.evaluation import Chosen, choose_split, match_labels
from pellucid.bundle.folder import load
from pellucid.bundle.recogniser import Recogniser, infer
from pellucid.data.images import Images, Source
from pellucid.data.load import load as load_pictures
from pellucid.data.source import open_source
from pellucid.errors import DataError, UsageError
from pellucid.scores import evaluation, mcnemar, paired_difference

#: Two runs differ where chance alone would make equally good ones differ so much less often than this.
SIGNIFICANT = 0.05


def compare(
    a: str | os.PathLike[str], b: str | os.PathLike[str], data: str | os.PathLike[str], *, split: str | None = None
) -> dict[str, Any]:
    """Whether two runs differ on labelled pictures that neither was trained on; A is the first one.

    Returns the object that `pellucid eval A B DATA --json` prints: data, split, n; a and b, each with run and every
    figure of an evaluation; both_right, only_a_right, only_b_right, both_wrong, pictures; p_value (McNemar 1947, the
    exact test); difference (accuracy of B less that of A), difference_low, difference_high (95 %, Newcombe 1998);
    differ (whether p_value is below 0.05); and `why`, a sentence on the choice of pictures. Labels and classes are
    matched by name.

    Raises UsageError for runs that do not tell the same classes apart, DataError for data without pictures that both
    can be judged by, or with a class that the networks do not know.
    """
    places = (os.fspath(a), os.fspath(b))
    recognisers = [load(place) for place in places]
    _refuse_other_classes(places, recognisers)
    source = open_source(data, training=False)
    chosen = _common(source, places, split)
    answers, bad = _asked(source, chosen.images, recognisers)
    scores = [
        evaluation(logits_nk, labels_n, recogniser.classes)
        for recogniser, (logits_nk, labels_n) in zip(recognisers, answers, strict=True)
    ]
    right_a, right_b = (logits_nk.argmax(1) == labels_n for logits_nk, labels_n in answers)
    difference, low, high = paired_difference(right_a, right_b)
    p_value = mcnemar(right_a, right_b)
    return {
        "data": os.fspath(data),
        "split": chosen.split,
        "n": int(right_a.size),
        "a": {"run": places[0], **scores[0]},
        "b": {"run": places[1], **scores[1]},
        "both_right": int((right_a & right_b).sum()),
        "only_a_right": int((right_a & ~right_b).sum()),
        "only_b_right": int((~right_a & right_b).sum()),
        "both_wrong": int((~right_a & ~right_b).sum()),
        "p_value": p_value,
        "difference": difference,
        "difference_low": low,
        "difference_high": high,
        "differ": p_value < SIGNIFICANT,
        "why": chosen.why + "".join(f"; left out {sentence}" for sentence in bad),
    }


def _refuse_other_classes(places: tuple[str, str], recognisers: list[Recogniser]) -> None:
    """Their order may differ, their names not: on other classes a network has another task."""
    known = [set(recogniser.classes) for recogniser in recognisers]
    if known[0] == known[1]:
        return
    alone = [
        f"only {place} knows {', '.join(map(repr, sorted(mine - others)[:3]))}"
        for place, mine, others in zip(places, known, reversed(known), strict=True)
        if mine - others
    ]
    raise UsageError(
        f"{places[0]} and {places[1]} do not tell the same classes apart ({'; '.join(alone)}): compare runs that were "
        "trained on the same classes, or evaluate each by itself"
    )


def _common(source: Source, places: tuple[str, str], split: str | None) -> Chosen:
    """The pictures that both runs can be judged by: with seeds of their own they held out different ones."""
    first, second = (choose_split(source, Path(place), split) for place in places)
    theirs = set(second.images.names)
    index = np.array([i for i, name in enumerate(first.images.names) if name in theirs], np.int64)
    if not len(index):
        raise DataError(
            f"{source.place}: no picture of it can judge both runs: each was trained on those that the other held out; "
            "give pictures that both have not seen, or train both with the same --seed"
        )
    why = first.why
    if len(index) < max(len(first.images), len(second.images)):
        why = f"pictures that {'both were' if split == 'train' else 'neither was'} trained on"
    name = first.split if first.split == second.split else "val"
    return Chosen(name, first.images.take(index), why)


def _asked(
    source: Source, images: Images, recognisers: list[Recogniser]
) -> tuple[list[tuple[NDArray[np.float64], NDArray[np.int64]]], list[str]]:
    """Each network's logits and its own numbers of the classes, for the same pictures; and what was left out."""
    loaded = [
        load_pictures(replace(images, labels=match_labels(source, images, one.classes)), one.preprocess)
        for one in recognisers
    ]
    # A file that vanished between two readings is left out of both.
    shared = set(loaded[0].names) & set(loaded[1].names)
    answers = []
    for recogniser, one in zip(recognisers, loaded, strict=True):
        index = np.array([i for i, name in enumerate(one.names) if name in shared], np.int64)
        answers.append((infer(recogniser.model, recogniser.preprocess, one.pixels)[index], one.labels[index]))
    return answers, list(dict.fromkeys(str(bad) for one in loaded for bad in one.bad))

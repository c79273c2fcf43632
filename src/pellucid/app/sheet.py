"""`pellucid check --augment`: pictures as the network would really see them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid import draw
from pellucid.app.flags import Check
from pellucid.data.augment import gather
from pellucid.data.images import Images, Source
from pellucid.data.mix import Mixed, gather_mixed, mixes
from pellucid.data.pack import Packed
from pellucid.data.preprocess import Preprocess
from pellucid.errors import DataError

#: Pictures on the sheet, and how many times each is shown.
PICTURES, TIMES = 8, 8

#: The training pictures that others are mixed in from.
_AMONG = 512


def write_sheet(source: Source, images: Images, packed: Packed, preprocess: Preprocess, options: Check) -> str | None:
    """Draw some training pictures, each as it is and as some epochs would show it; returns a note on missing letters.

    Raises DataError when there is no picture to draw, and PellucidError when the file cannot be written.
    """
    train = len(source.splits.get("train", ()))
    good = np.setdiff1d(np.arange(train), list(packed.facts.bad))
    if not len(good):
        raise DataError(f"{source.place}: no training picture to draw: add some, or leave --augment away")
    # Spread over the classes, as they are sorted by name.
    spread = good[np.argsort(images.labels[good], kind="stable")]
    shown = spread[np.unique(np.linspace(0, len(spread) - 1, PICTURES).round().astype(int))]
    rest = np.setdiff1d(good, shown)[: _AMONG - len(shown)]
    among = np.concatenate([shown, rest])
    pixels = torch.from_numpy(_pixels(images, packed, preprocess, among))
    labels = torch.from_numpy(images.labels[among])
    mean = preprocess.with_statistics(pixels.numpy()).mean
    changes = options.augment or ()
    index_n = np.arange(len(shown))
    rows, captions = [pixels[: len(shown)].numpy()], [[source.classes[k] for k in labels[: len(shown)].tolist()]]
    for epoch in range(TIMES - 1):
        if mixes(changes):
            x_nhwc, target = gather_mixed(pixels, labels, index_n, changes, 0, epoch, mean)
            captions.append(_mixed(source.classes, target))
        else:
            x_nhwc = gather(pixels, index_n, changes, 0, epoch, mean)
            captions.append([f"epoch {epoch + 1}"] * len(shown))
        rows.append(x_nhwc.numpy())
    # A row of the sheet is one picture through the epochs.
    sheet = np.stack(rows, axis=1).reshape(-1, *pixels.shape[1:])
    texts = [caption for picture in zip(*captions, strict=True) for caption in picture]
    return draw.contact_sheet(sheet, texts, options.sheet, columns=TIMES)


def _pixels(images: Images, packed: Packed, preprocess: Preprocess, among: NDArray[np.int64]) -> NDArray[np.uint8]:
    if images.pixels is not None:
        return preprocess.fit_batch(images.pixels[among])
    if packed.pixels is not None:
        return np.array(packed.pixels[packed.row_n[among]])
    assert images.files is not None
    return np.stack([preprocess.pixels(images.files[n].read_bytes(), images.names[n]) for n in among])


def _mixed(classes: tuple[str, ...], target: Mixed) -> list[str]:
    """What each mixture shows."""
    texts = []
    for own, partner, share in zip(*(part.tolist() for part in target), strict=True):
        whole = share == 1 or own == partner
        texts.append(classes[own] if whole else f"{share:.0%} {classes[own]}\n{1 - share:.0%} {classes[partner]}")
    return texts

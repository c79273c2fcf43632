"""Make the picture of docs/augmentation.md: what each change makes of two photographs.

PELLUCID_DATA=... python docs/augmentation_figure.py
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pellucid.data.augment import ORDER
from pellucid.data.batches import Batches
from pellucid.data.preprocess import Preprocess
from pellucid.draw import contact_sheet

PATH = Path(__file__).parent / "images" / "augmentation.png"
SIDE, EPOCHS = 64, 12

#: Photographs of flower-photos-small; the first two are shown, any can be mixed in. Their authors stand in the page.
PHOTOS = (
    "train/daisy/10437754174_22ec990b77_m.jpg",
    "train/tulips/100930342_92e8746431_n.jpg",
    "train/roses/19440805164_920b28da61_n.jpg",
    "train/sunflowers/184682920_97ae41ce60_m.jpg",
)


def seen(pixels_nhwc: torch.Tensor, change: str) -> torch.Tensor:
    """The first two photographs, each in the epoch that changes it more than two thirds of the epochs do.

    Of mixup, whose share is most often near 0 or 1, the most even mixture.
    """
    preprocess = Preprocess((SIDE, SIDE), "crop", 3, (0.5,) * 3, (1.0,) * 3).with_statistics(pixels_nhwc.numpy())
    batches = Batches(pixels_nhwc, torch.arange(len(PHOTOS)), preprocess, (change,), len(PHOTOS), seed=2)
    pictures, sizes = [], []
    for epoch in range(EPOCHS):
        (x_nhwc, target) = next(iter(batches.epoch(epoch)))
        labels_n = target if isinstance(target, torch.Tensor) else target.labels_n
        x_nhwc = x_nhwc[labels_n.argsort()]
        size_n = (x_nhwc.float() - pixels_nhwc).square().mean((1, 2, 3))
        if change == "mixup" and not isinstance(target, torch.Tensor):
            # A photograph mixed with itself is not changed at all.
            size_n = torch.where(size_n > 0, 1 - 2 * (target.share_n[labels_n.argsort()] - 0.5).abs(), 0)
        pictures.append(x_nhwc)
        sizes.append(size_n)
    order_en = torch.stack(sizes).argsort(0)
    chosen_n = order_en[-1 if change == "mixup" else 2 * EPOCHS // 3]
    return torch.stack([pictures[int(chosen_n[n])][n] for n in range(2)])


def main() -> None:
    """Draw the sheet: a row of six is half of one photograph's changes."""
    folder = Path(os.environ["PELLUCID_DATA"]) / "flower-photos-small"
    preprocess = Preprocess((SIDE, SIDE), "crop", 3, (0.5,) * 3, (1.0,) * 3)
    pixels = np.stack([preprocess.pixels((folder / name).read_bytes(), name) for name in PHOTOS])
    pixels_nhwc = torch.from_numpy(pixels)
    shown = torch.stack([pixels_nhwc[:2], *(seen(pixels_nhwc, change) for change in ORDER)], dim=1)
    captions = ["as it is", *ORDER] * 2
    note = contact_sheet(shown.flatten(0, 1).numpy(), captions, PATH, columns=6)
    if note:
        print(note)
    # A third of the room, and hardly to be seen.
    Image.open(PATH).convert("RGB").quantize(256, kmeans=3).save(PATH, optimize=True)


if __name__ == "__main__":
    main()

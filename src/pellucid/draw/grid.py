"""Sheets of images with a caption each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.font_manager import FontProperties

from pellucid.draw.canvas import PALE, canvas
from pellucid.draw.text import readable
from pellucid.errors import UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Side of an image on the sheet, the gap between two, and the height of a caption's line, in inches.
_SIDE, _GAP, _LINE = 1.3, 0.12, 0.145

#: Lines of a caption that are drawn, and Latin letters a line.
_LINES, _LETTERS = 3, 20


def contact_sheet(
    images: NDArray[Any], captions: Sequence[str], path: str | os.PathLike[str], columns: int = 8
) -> str | None:
    r"""Draw images in rows of `columns`, a caption under each, as PNG; returns a note for the user.

    `images` is uint8 (N, H, W, 3) or (N, H, W, 1), `captions` N texts, in which \n begins a new line (of at most
    three). The note, or None, is about letters that no installed font can show.

    Raises UsageError for images or captions that do not fit, and PellucidError when the file cannot be written.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise UsageError(f"images of shape {images.shape} and type {images.dtype}: expected uint8 (N, H, W, 1 or 3)")
    if len(captions) != len(images):
        raise UsageError(f"{len(images)} images and {len(captions)} captions: expected one for each")
    if columns < 1:
        raise UsageError(f"columns {columns}: expected at least 1")
    lines = [[line if line.strip() else "–" for line in caption.split("\n")[:_LINES]] for caption in captions]
    # All in one list: one font for the sheet, and one note that names each text once.
    distinct = list(dict.fromkeys(line for caption in lines for line in caption))
    names = readable(distinct, width=_LETTERS)
    text_of = dict(zip(distinct, names.labels, strict=True))
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    high = _SIDE * images.shape[1] / images.shape[2]
    step_x, step_y = _SIDE + _GAP, high + _GAP + _LINE * max(map(len, lines))
    width, height = columns * step_x, rows * step_y
    with canvas(width, height, path) as figure:
        for place, (image, caption) in enumerate(zip(images, lines, strict=True)):
            left, top = place % columns * step_x, height - place // columns * step_y
            axes = figure.add_axes((left / width, (top - high) / height, _SIDE / width, high / height))
            grey = image.shape[2] == 1
            # Few pixels are shown as they are, many averaged.
            axes.imshow(image[:, :, 0] if grey else image, cmap="gray", vmin=0, vmax=255, interpolation="auto")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color(PALE)
            text = "\n".join(text_of[line] for line in caption)
            font = FontProperties(family=names.family, size=7.5)
            drawn = axes.text(
                0, -0.04 / high, text, transform=axes.transAxes, va="top", fontproperties=font, linespacing=1.15
            )
            # Capitals and the like: rather small than across the next image's caption.
            drawn.set_fontsize(7.5 * min(1, (_SIDE + _GAP / 2) * figure.dpi / drawn.get_window_extent().width))
    return names.note

"""A figure that belongs to nobody else: no pyplot, no display, the same bytes for the same numbers."""

from __future__ import annotations

import contextlib
import io
import threading
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pellucid.draw.text import quiet
from pellucid.files import write_bytes

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

# Colours of Okabe and Ito's palette (2008), told apart with any of the common kinds of colour blindness; the lines
# differ in dashes too, for print in grey.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
INK, GREY, PALE = "#222222", "#767676", "#DDDDDD"

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
}

#: matplotlib's settings are global; two threads drawing at once would put back each other's.
_SETTINGS = threading.RLock()


@contextlib.contextmanager
def canvas(width: float, height: float, path: str | os.PathLike[str], *, dpi: int = 120) -> Iterator[Figure]:
    """A figure of `width` by `height` inches to draw on; written to `path` as PNG, cropped to what was drawn.

    The user's matplotlib settings neither show in it nor are changed. Raises PellucidError when the file cannot be
    written.
    """
    with _SETTINGS, quiet(), mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
        FigureCanvasAgg(figure)
        yield figure
        buffer = io.BytesIO()
        # Without the drawing library's version in it, so that equal runs leave equal files.
        figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.15, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())

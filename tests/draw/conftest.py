from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pytest
from fontTools.fontBuilder import FontBuilder  # type: ignore[import-untyped]
from fontTools.pens.ttGlyphPen import TTGlyphPen  # type: ignore[import-untyped]
from matplotlib import font_manager
from matplotlib.figure import Figure

from pellucid.draw import canvas as canvas_module
from pellucid.draw import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def bundled_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with the fonts that matplotlib brings along, and no others."""
    home = os.path.join(mpl.get_data_path(), "fonts")  # noqa: PTH118
    entries = [entry for entry in font_manager.fontManager.ttflist if str(entry.fname).startswith(home)]
    assert entries
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_args, **_kwargs: [])
    forget_fonts()
    yield
    forget_fonts()


def forget_fonts() -> None:
    text._add_new_fonts.cache_clear()
    # matplotlib remembers which file it took for a family.
    font_manager.fontManager._findfont_cached.cache_clear()  # type: ignore[attr-defined]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures drawn in a test, to look into."""
    figures: list[Figure] = []

    class Kept(Figure):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr(canvas_module, "Figure", Kept)
    return figures


ASCII = "".join(map(chr, range(32, 127)))


@pytest.fixture
def make_font() -> Callable[..., Path]:
    """Small fonts made on the spot, so that no test depends on what is installed."""
    return build_font


def build_font(path: Path, family: str, letters: str, *, ascii_too: bool = True) -> Path:
    """A TrueType font in which each of the letters is a black square."""
    letters = ASCII + letters if ascii_too else letters
    names = [".notdef", *(f"u{ord(letter):x}" for letter in letters)]
    pen = TTGlyphPen(None)
    for k, point in enumerate([(50, 0), (50, 700), (750, 700), (750, 0)]):
        (pen.lineTo if k else pen.moveTo)(point)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f"u{ord(letter):x}" for letter in letters})
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (800, 50)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWeightClass=400)
    builder.setupPost()
    builder.save(path)
    return path

"""Names of classes as text that can be drawn: in a font that has their letters, or replaced, never as empty boxes."""

from __future__ import annotations

import contextlib
import functools
import logging
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib import font_manager

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: What matplotlib brings along: Latin, Greek, Cyrillic and more, but no Chinese, Japanese or Korean.
DEFAULT = "DejaVu Sans"

#: Fonts with Chinese letters (and, most of them, Japanese and Korean), the better looking first.
_PREFERRED = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "PingFang SC",
    "Hiragino Sans GB",
    "Hiragino Sans",
    "Microsoft YaHei",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "SimHei",
    "Heiti SC",
    "Arial Unicode MS",
    "Malgun Gothic",
    "Droid Sans Fallback",
)

#: What plots write beside a name; a font of symbols may have the letters of a name and not these.
_ALWAYS = frozenset("#()., 0123456789")

#: Fonts that claim every letter and draw none: each is an empty box or a blank.
_HOLLOW = ("last resort", "lastresort", "adobe blank", "adobe notdef", "blank", "tofu")


@dataclass(frozen=True)
class Readable:
    """Labels ready for drawing, and the font to draw them in."""

    labels: list[str]
    """One for each label given, safe from mathematical notation; `#3` where no font has the letters of number 3."""
    family: str | None
    """The font's family; None for the default one."""
    note: str | None
    """What was replaced, and what to do about it; None where nothing was."""


def readable(labels: Sequence[str], width: int | None = None) -> Readable:
    """The labels as they can be drawn on this machine, in the first font that has all their letters.

    Where no font has all, the one that suits most labels is taken, and each of the others becomes `#` and its place in
    the list, from 0. Letters that control rather than show are left out, and a label wider than `width` Latin letters
    loses its middle.
    """
    shown = [_shorten(_visible(label), width) for label in labels]
    needed = [frozenset(label) for label in shown]
    everything = _ALWAYS.union(*needed)
    family, best, fitting = DEFAULT, -1, [False] * len(shown)
    with quiet():
        for name, path in _fonts():
            present = _present(path, everything)
            fits = [bool(letters) and letters <= present for letters in needed]
            if sum(fits) > best and present >= _ALWAYS:
                family, best, fitting = name, sum(fits), fits
            if best == len(shown):
                break
    texts = [
        label.replace("$", r"\$") if fits else f"#{place}"
        for place, (label, fits) in enumerate(zip(shown, fitting, strict=True))
    ]
    missing = [place for place, fits in enumerate(fitting) if not fits]
    note = _note([labels[place] for place in missing], missing) if missing else None
    return Readable(texts, None if family == DEFAULT else family, note)


def _visible(label: str) -> str:
    kept = []
    for letter in label:
        category = unicodedata.category(letter)
        if category == "Cs":
            kept.append("\N{REPLACEMENT CHARACTER}")  # a byte of a file name that was no UTF-8
        elif category == "Cf":
            continue  # joiners and marks of direction: no shape of their own
        else:
            kept.append(" " if category in {"Cc", "Zl", "Zp", "Zs"} else letter)
    return unicodedata.normalize("NFC", " ".join("".join(kept).split()))


def _shorten(label: str, width: int | None) -> str:
    """The label without its middle, if wider than `width` Latin letters: names often differ in their last letters."""
    if width is None or cells(label) <= width:
        return label
    front = back = ""
    room = width - 1
    for letter in label:
        if cells(front + letter) > room * 2 // 3:
            break
        front += letter
    room -= cells(front)
    for letter in reversed(label):
        if cells(letter + back) > room:
            break
        back = letter + back
    return f"{front.rstrip()}…{back.lstrip()}"


def cells(text: str) -> int:
    """How wide the text is, in Latin letters: a Chinese one is as wide as two, and an accent has no width."""
    return sum(
        2 if unicodedata.east_asian_width(letter) in {"W", "F"} else 1
        for letter in text
        if not unicodedata.combining(letter)
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the log lines of matplotlib's search for fonts, which tell the user about fonts nobody asked for."""
    logger = logging.getLogger("matplotlib.font_manager")

    def keep(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("findfont")

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _fonts() -> Iterator[tuple[str, str]]:
    """Families to try, each with the file that matplotlib will take for it."""
    tried: set[str] = set()
    for again in (False, True):
        if again:
            _add_new_fonts()
        entries = font_manager.fontManager.ttflist
        installed = {entry.name for entry in entries}
        upright = {entry.name for entry in entries if entry.style == "normal"}
        names = [name for name in (DEFAULT, *_PREFERRED) if name in installed]
        names += sorted(upright - set(names), key=str.lower)
        for name in names:
            if name in tried or name.lower().lstrip(".").startswith(_HOLLOW):
                continue
            tried.add(name)
            with contextlib.suppress(ValueError):  # listed, but in no file that can be used
                yield name, font_manager.findfont(font_manager.FontProperties(family=name), fallback_to_default=False)


@functools.cache
def _add_new_fonts() -> None:
    """Tell matplotlib of fonts installed since it made its list, which it keeps for good: our own remedy must work."""
    known = {str(entry.fname) for entry in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            with contextlib.suppress(Exception):  # a broken file among the installed fonts is none of our business
                font_manager.fontManager.addfont(path)


@functools.lru_cache(maxsize=4096)
def _present(path: str, letters: frozenset[str]) -> frozenset[str]:
    """Those of the letters that the font has."""
    try:
        font = font_manager.get_font(path)
        codes = font.get_charmap() if font.scalable else {}
    except (OSError, RuntimeError, ValueError):
        return frozenset()  # a broken file is no help, and no failure of ours
    return frozenset(letter for letter in letters if ord(letter) in codes)


def _note(labels: Sequence[str], places: Sequence[int]) -> str:
    named = ", ".join(f"#{place} for {label!r:.40}" for place, label in list(zip(places, labels, strict=True))[:5])
    more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    wide = any(cells(letter) == 2 for label in labels for letter in label)
    font = "Noto Sans CJK" if wide else "the Noto Sans font for their script"
    return (
        f"no installed font has the letters of some names, so the plot says {named}{more}: install one, such as {font}"
    )

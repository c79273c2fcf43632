from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib import font_manager
from matplotlib.figure import Figure

from pellucid.draw.text import cells, quiet, readable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    MakeFont = Callable[..., Path]

FLOWERS = ["雏菊", "蒲公英", "玫瑰", "向日葵", "郁金香"]


def installed(path: Path) -> None:
    with quiet():
        font_manager.fontManager.addfont(path)


@pytest.mark.usefixtures("bundled_fonts")
def test_latin_greek_and_cyrillic_need_nothing() -> None:
    labels = ["daisy", "Sneaker/boot", "çiçek", "ρόδο", "ромашка", "-1 °C"]
    found = readable(labels)
    assert (found.labels, found.family, found.note) == (labels, None, None)


@pytest.mark.usefixtures("bundled_fonts")
def test_without_a_font_names_become_numbers_and_the_user_is_told() -> None:
    found = readable(["cat", *FLOWERS, "猫"])
    assert found.labels == ["cat", "#1", "#2", "#3", "#4", "#5", "#6"]
    assert found.family is None
    assert found.note == (
        "no installed font has the letters of some names, so the plot says #1 for '雏菊', #2 for '蒲公英', "
        "#3 for '玫瑰', #4 for '向日葵', #5 for '郁金香' and 1 more: install one, such as Noto Sans CJK"
    )


@pytest.mark.usefixtures("bundled_fonts")
def test_the_remedy_fits_the_script() -> None:
    note = readable(["ಬೆಕ್ಕು"]).note
    assert note is not None
    assert note.endswith("install one, such as the Noto Sans font for their script")


@pytest.mark.usefixtures("bundled_fonts")
def test_an_installed_font_is_found(tmp_path: Path, make_font: MakeFont) -> None:
    installed(make_font(tmp_path / "a.ttf", "Zhong Test", "".join(FLOWERS)))
    found = readable(["rose", *FLOWERS])
    assert (found.labels, found.family, found.note) == (["rose", *FLOWERS], "Zhong Test", None)
    # What the default can draw stays with the default.
    assert readable(["rose"]).family is None


@pytest.mark.usefixtures("bundled_fonts")
def test_a_well_known_font_is_preferred(tmp_path: Path, make_font: MakeFont) -> None:
    installed(make_font(tmp_path / "a.ttf", "Aardvark", "".join(FLOWERS)))
    installed(make_font(tmp_path / "b.ttf", "SimHei", "".join(FLOWERS)))
    assert readable(FLOWERS).family == "SimHei"


@pytest.mark.usefixtures("bundled_fonts")
def test_the_font_that_suits_most_names_is_taken(tmp_path: Path, make_font: MakeFont) -> None:
    installed(make_font(tmp_path / "a.ttf", "Roses", "玫瑰"))
    installed(make_font(tmp_path / "b.ttf", "Most", "雏菊蒲公英"))
    found = readable(["tree", *FLOWERS[:3]])
    assert (found.labels, found.family) == (["tree", "雏菊", "蒲公英", "#3"], "Most")
    assert found.note is not None
    assert "#3 for '玫瑰'" in found.note


@pytest.mark.usefixtures("bundled_fonts")
@pytest.mark.parametrize("name", ["Last Resort High-Efficiency", ".LastResort", "Adobe Blank", "Adobe NotDef"])
def test_fonts_that_draw_boxes_do_not_count(tmp_path: Path, make_font: MakeFont, name: str) -> None:
    installed(make_font(tmp_path / "a.ttf", name, "".join(FLOWERS)))
    assert readable(FLOWERS).labels == ["#0", "#1", "#2", "#3", "#4"]


@pytest.mark.usefixtures("bundled_fonts")
def test_a_font_without_digits_does_not_count(tmp_path: Path, make_font: MakeFont) -> None:
    installed(make_font(tmp_path / "a.ttf", "Only Flowers", "".join(FLOWERS), ascii_too=False))
    assert readable(FLOWERS).labels[0] == "#0"


@pytest.mark.usefixtures("bundled_fonts")
def test_a_font_installed_since_matplotlib_looked_is_found(
    tmp_path: Path, make_font: MakeFont, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without another look, our own remedy would not help: matplotlib keeps its list of fonts for good."""
    paths = [
        str(make_font(tmp_path / "new.ttf", "Noto Sans CJK SC", "".join(FLOWERS))),
        str(tmp_path / "gone.ttf"),
        str(tmp_path / "broken.ttf"),
    ]
    (tmp_path / "broken.ttf").write_bytes(b"no font at all")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_args, **_kwargs: paths)
    found = readable(FLOWERS)
    assert (found.labels, found.family, found.note) == (FLOWERS, "Noto Sans CJK SC", None)


@pytest.mark.usefixtures("bundled_fonts")
def test_a_listed_font_whose_file_is_broken_is_passed_over(tmp_path: Path, make_font: MakeFont) -> None:
    path = make_font(tmp_path / "a.ttf", "SimHei", "".join(FLOWERS))
    installed(path)
    path.write_bytes(b"damaged")
    assert readable(FLOWERS).labels[0] == "#0"


@pytest.mark.usefixtures("bundled_fonts")
def test_the_search_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        readable(FLOWERS)
        logging.getLogger("matplotlib.font_manager").warning("something else")
    assert [record.message for record in caplog.records if "findfont" in record.message] == []
    assert "something else" in caplog.text


@pytest.mark.usefixtures("bundled_fonts")
@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("tab\tand\nnewline", "tab and newline"),
        ("  many   spaces\u00a0 ", "many spaces"),
        ("zero\u200bwidth", "zerowidth"),
        ("gnp.\u202etset", "gnp.tset"),
        ("bell\x07", "bell"),
        ("caf\udce9", "caf\ufffd"),
        ("e\u0301te\u0301", "été"),
        ("$5", r"\$5"),
        ("$x^2$", r"\$x^2\$"),
        ("a_b^c\\d{e}%", "a_b^c\\d{e}%"),
        ("", "#0"),
        (" \n ", "#0"),
    ],
)
def test_odd_letters(label: str, shown: str) -> None:
    assert readable([label]).labels == [shown]


@pytest.mark.usefixtures("bundled_fonts")
@pytest.mark.parametrize(
    ("label", "width", "shown"),
    [
        ("twelve lette", 12, "twelve lette"),
        ("thirteen letters", 12, "thirtee…ters"),
        ("Labrador retriever, black", 16, "Labrador r…black"),
        ("$$$$$$$$$$", 7, r"\$\$\$\$…\$\$"),
    ],
)
def test_long_names_keep_both_ends(label: str, width: int, shown: str) -> None:
    assert readable([label], width).labels == [shown]


def test_chinese_letters_count_twice(tmp_path: Path) -> None:
    assert cells("花a") == 3
    assert cells("e\u0301") == 1
    assert cells("") == 0


@pytest.mark.usefixtures("bundled_fonts")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=st.lists(st.text(st.characters(), max_size=30), min_size=1, max_size=4), width=st.integers(6, 20))
def test_whatever_the_names_they_are_drawn_without_a_warning(labels: list[str], width: int) -> None:
    """Missing letters, mathematical notation gone wrong: either would warn or fail, and a warning is an error here."""
    found = readable(labels, width)
    assert len(found.labels) == len(labels)
    assert all(found.labels)
    assert all(cells(label.replace(r"\$", "$")) <= width for label in found.labels)
    figure = Figure(figsize=(4, 2), dpi=50)
    for row, label in enumerate(found.labels):
        figure.text(0.1, 0.2 * row, label, family=found.family or "DejaVu Sans")
    figure.draw_without_rendering()

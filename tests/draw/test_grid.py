from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from pellucid.draw.grid import contact_sheet
from pellucid.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure


def pictures(n: int, height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_in_rows_each_with_its_caption(tmp_path: Path, drawn: list[Figure], channels: int) -> None:
    images = pictures(11, channels=channels)
    assert contact_sheet(images, [f"label {k}\n0.{k}" for k in range(11)], tmp_path / "a.png", columns=4) is None
    axes = drawn[0].axes
    assert len(axes) == 11
    for k, one in enumerate(axes):
        shown = np.asarray(one.images[0].get_array())
        np.testing.assert_array_equal(shown, images[k, :, :, 0] if channels == 1 else images[k])
        assert one.texts[0].get_text() == f"label {k}\n0.{k}"
    lefts = [round(one.get_position().x0, 6) for one in axes]
    tops = [round(one.get_position().y1, 6) for one in axes]
    assert lefts == [lefts[k % 4] for k in range(11)]
    assert len(set(lefts)) == 4
    assert lefts[:4] == sorted(lefts[:4])
    assert tops == [tops[k // 4 * 4] for k in range(11)]
    assert tops[0] > tops[4] > tops[8]


def test_pixels_arrive_unchanged(tmp_path: Path) -> None:
    """A pure red, a mid-grey one: grey is not stretched to black and white."""
    images = np.zeros((2, 4, 4, 3), np.uint8)
    images[0, :, :, 0] = 255
    images[1] = 100
    contact_sheet(images, ["red", "grey"], tmp_path / "a.png")
    contact_sheet(images[1:, :, :, :1], ["grey"], tmp_path / "b.png")
    with Image.open(tmp_path / "a.png") as image:
        colours = {colour for count, colour in image.convert("RGB").getcolors(1 << 20) or [] if count > 10_000}
    assert {(255, 0, 0), (100, 100, 100)} <= colours
    with Image.open(tmp_path / "b.png") as image:
        assert (100, 100, 100) in {c for count, c in image.convert("RGB").getcolors(1 << 20) or [] if count > 10_000}


@pytest.mark.parametrize(("height", "width"), [(8, 8), (20, 10), (10, 30)])
def test_proportions_are_kept_and_captions_clear_the_next_row(
    tmp_path: Path, drawn: list[Figure], height: int, width: int
) -> None:
    contact_sheet(pictures(6, height, width), ["a\nb\nc"] * 6, tmp_path / "a.png", columns=2)
    figure = drawn[0]
    figure.draw_without_rendering()
    box = figure.axes[0].get_window_extent()
    assert box.height / box.width == pytest.approx(height / width, rel=1e-6)
    caption = figure.axes[0].texts[0].get_window_extent()
    assert caption.y1 <= box.y0
    assert caption.y0 >= figure.axes[2].get_window_extent().y1


def test_long_captions_do_not_reach_the_next_image(tmp_path: Path, drawn: list[Figure]) -> None:
    contact_sheet(pictures(4), ["WIDE LETTERS MMMMMMMMMMMMMMMMMMMM", "l" * 60, "a/b/c.jpg", ""], tmp_path / "a.png")
    figure = drawn[0]
    figure.draw_without_rendering()
    for one, following in zip(figure.axes, figure.axes[1:], strict=False):
        assert one.texts[0].get_window_extent().x1 <= following.get_window_extent().x0 + 1
    assert figure.axes[3].texts[0].get_text() == "–"


@pytest.mark.usefixtures("bundled_fonts")
def test_captions_that_no_font_can_show(tmp_path: Path, drawn: list[Figure]) -> None:
    note = contact_sheet(pictures(3), ["rose\n玫瑰", "rose\n玫瑰", "daisy\n雏菊"], tmp_path / "a.png")
    assert [one.texts[0].get_text() for one in drawn[0].axes] == ["rose\n#1", "rose\n#1", "daisy\n#3"]
    assert note is not None
    assert note.count("玫瑰") == 1


@pytest.mark.parametrize(
    ("images", "captions", "columns", "words"),
    [
        (np.zeros((0, 4, 4, 3), np.uint8), [], 8, "expected uint8"),
        (np.zeros((1, 4, 4, 3), np.float32), ["a"], 8, "type float32: expected uint8"),
        (np.zeros((1, 4, 4, 4), np.uint8), ["a"], 8, r"expected uint8 \(N, H, W, 1 or 3\)"),
        (np.zeros((4, 4, 3), np.uint8), ["a"] * 4, 8, "expected uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), ["a"], 8, "2 images and 1 captions"),
        (np.zeros((1, 4, 4, 3), np.uint8), ["a"], 0, "columns 0: expected at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, images: Any, captions: Any, columns: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        contact_sheet(images, captions, tmp_path / "a.png", columns)
    assert list(tmp_path.iterdir()) == []

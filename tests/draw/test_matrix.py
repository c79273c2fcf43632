from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image

from pellucid.draw.matrix import _brief, confusion
from pellucid.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def matrix(n: int, images: int = 100) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(n)
    shares = 0.3 * random.dirichlet(np.ones(n), n) + 0.7 * np.eye(n)
    return np.stack([random.multinomial(images, row) for row in shares]).astype(np.int64)


def texts(axes: Axes) -> dict[tuple[int, int], str]:
    """What stands in each cell, by (true class, predicted class)."""
    return {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in axes.texts}


def test_each_cell_says_its_count_and_its_share_of_the_row(tmp_path: Path, drawn: list[Figure]) -> None:
    counts = [[197, 2, 1], [10, 30, 0], [0, 0, 0]]
    assert confusion(counts, ["cat", "dog", "owl"], tmp_path / "a.png") is None
    axes = drawn[0].axes[0]
    # 1 of 200 is below 1 %: its share would only be noise.
    assert texts(axes) == {(0, 0): "197\n98 %", (0, 1): "2\n1 %", (0, 2): "1", (1, 0): "10\n25 %", (1, 1): "30\n75 %"}
    assert [t.get_text() for t in axes.get_xticklabels()] == ["cat", "dog", "owl"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["cat  (200)", "dog  (40)", "owl  (0)"]
    assert axes.get_title("left") == "Confusion: 227 of 240 right (94.6 %)"
    assert axes.get_xlabel() == "predicted class"
    assert axes.get_ylabel() == "true class (images)"


def test_colours_tell_right_from_wrong_and_much_from_little(tmp_path: Path, drawn: list[Figure]) -> None:
    confusion([[8, 2, 0], [5, 5, 0], [0, 0, 0]], ["a", "b", "c"], tmp_path / "a.png")
    colours = np.asarray(drawn[0].axes[0].images[0].get_array())
    red, blue = colours[..., 0], colours[..., 2]
    assert blue[0, 0] > red[0, 0]
    assert blue[1, 1] > red[1, 1]
    assert red[0, 1] > blue[0, 1]
    assert red[1, 0] > blue[1, 0]
    light = colours[..., :3].mean(axis=-1)
    assert light[0, 0] < light[1, 1]
    assert light[1, 0] < light[0, 1] < light[0, 2] == 1
    # A class without images is grey throughout, and not taken for one that was always missed.
    assert np.ptp(colours[2, :, :3]) == 0
    assert light[2, 0] < 1


@pytest.mark.parametrize("n", [1, 2, 12, 13, 25, 26, 100, 400])
def test_any_number_of_classes(tmp_path: Path, drawn: list[Figure], n: int) -> None:
    counts = matrix(n)
    confusion(counts, [f"class {k}" for k in range(n)], tmp_path / "a.png")
    figure = drawn[0]
    axes = figure.axes[0]
    found = texts(axes)
    if n <= 25:
        assert {cell: text.split("\n")[0] for cell, text in found.items()} == {
            (i, j): str(counts[i, j]) for i in range(n) for j in range(n) if counts[i, j]
        }
        assert any("%" in text for text in found.values()) == (n <= 12)
    else:
        assert not found
    figure.draw_without_rendering()
    names = axes.get_yticklabels()
    assert min(n, 60) <= len(names) <= 120
    boxes = sorted((label.get_window_extent() for label in names), key=lambda box: -box.y0)
    assert all(above.y0 >= below.y1 - 1 for above, below in itertools.pairwise(boxes))
    assert all(float(label.get_fontsize()) >= 5 for label in names)
    with Image.open(tmp_path / "a.png") as image:
        assert max(image.size) < 2400


@pytest.mark.parametrize("n", [3, 13])
@pytest.mark.parametrize("images", [9_999, 98_765, 87_654_321])
def test_large_counts_stay_inside_their_cells(tmp_path: Path, drawn: list[Figure], n: int, images: int) -> None:
    confusion(np.full((n, n), images), [str(k) for k in range(n)], tmp_path / "a.png")
    figure = drawn[0]
    figure.draw_without_rendering()
    axes = figure.axes[0]
    (left, _), (right, _) = axes.transData.transform([(-0.5, 0), (0.5, 0)])
    for text in axes.texts:
        assert text.get_window_extent().width < right - left
        assert float(text.get_fontsize()) >= 5


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (9_999, "9,999"), (10_000, "10k"), (999_499, "999k"), (999_500, "1M"), (1_234_567, "1.23M")],
)
def test_brief(count: int, text: str) -> None:
    assert _brief(count) == text


def test_text_stands_out_from_its_cell(tmp_path: Path, drawn: list[Figure]) -> None:
    shares = np.linspace(0, 100, 11).astype(int)
    counts = np.array([[100 - s, s] for s in shares])
    square = np.zeros((11, 11), int)
    square[:, :2] = counts
    confusion(square, [str(k) for k in range(11)], tmp_path / "a.png")
    axes = drawn[0].axes[0]
    colours = np.asarray(axes.images[0].get_array())

    def luminance(rgb: Any) -> float:
        channels = np.asarray(rgb, dtype=float)
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    from matplotlib.colors import to_rgb

    for text in axes.texts:
        column, row = map(round, text.get_position())
        pair = sorted([luminance(colours[row, column, :3]), luminance(to_rgb(text.get_color()))])
        # WCAG's contrast for text is 4.5.
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.4


def test_long_names_are_slanted_and_cut(tmp_path: Path, drawn: list[Figure]) -> None:
    names = ["an exceedingly long name for a class that nobody would type, first", "same, but second", "c"]
    confusion(matrix(3), names, tmp_path / "a.png")
    labels = drawn[0].axes[0].get_xticklabels()
    assert len(labels[0].get_text()) == 28
    assert labels[0].get_text().endswith("first")
    assert labels[0].get_rotation() == 40
    confusion(matrix(3), ["a", "b", "c"], tmp_path / "a.png")
    assert drawn[1].axes[0].get_xticklabels()[0].get_rotation() == 0


@pytest.mark.usefixtures("bundled_fonts")
def test_chinese_names_without_and_with_a_font(
    tmp_path: Path, drawn: list[Figure], make_font: Callable[[Path, str, str], Path]
) -> None:
    names = ["雏菊", "蒲公英", "玫瑰", "向日葵", "郁金香"]
    note = confusion(matrix(5), names, tmp_path / "without.png")
    assert note is not None
    assert "#0 for '雏菊'" in note
    assert [t.get_text() for t in drawn[0].axes[0].get_xticklabels()] == ["#0", "#1", "#2", "#3", "#4"]
    font_manager.fontManager.addfont(make_font(tmp_path / "a.ttf", "Noto Sans CJK SC", "".join(names)))
    assert confusion(matrix(5), names, tmp_path / "with.png") is None
    labels = drawn[1].axes[0].get_xticklabels()
    assert [t.get_text() for t in labels] == names
    assert labels[0].get_fontfamily() == ["Noto Sans CJK SC"]
    # The letters of this font are black squares, 0.7 of the font's size wide: they must be there in the picture.
    with Image.open(tmp_path / "with.png") as image:
        dark = np.asarray(image.convert("L")) < 60
    runs = np.lib.stride_tricks.sliding_window_view(dark[-90:], (10, 10)).all(axis=(2, 3))
    assert runs.any()


def test_names_with_dollars_are_no_formulas(tmp_path: Path, drawn: list[Figure]) -> None:
    confusion(matrix(2), ["$5 to $10", "$\\undefined$"], tmp_path / "a.png")
    assert drawn[0].axes[0].get_xticklabels()[0].get_text() == r"\$5 to \$10"


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 3), int), np.zeros((3, 3), int), np.zeros((2, 2)), np.array([[1, -1], [0, 1]]), [[1]]]
)
def test_a_matrix_that_does_not_fit_is_refused(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"expected counts \(2, 2\), a row and a column for each class"):
        confusion(wrong, ["a", "b"], tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_no_images_at_all(tmp_path: Path, drawn: list[Figure]) -> None:
    confusion(np.zeros((2, 2), int), ["a", "b"], tmp_path / "a.png")
    assert drawn[0].axes[0].get_title("left") == "Confusion: 0 of 0 right"

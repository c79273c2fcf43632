from __future__ import annotations

import os
import threading
from pathlib import Path

import matplotlib as mpl
import pytest
from PIL import Image

from pellucid.draw.canvas import BLUE, GREEN, GREY, INK, ORANGE, PALE, canvas
from pellucid.errors import PellucidError


def draw(path: Path, text: str = "text $5") -> None:
    with canvas(3, 2, path) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1])
        axes.set_title(text)


def test_a_png_on_white_cropped_to_what_is_drawn(tmp_path: Path) -> None:
    with canvas(6, 6, tmp_path / "a.png") as figure:
        figure.text(0.5, 0.5, "middle")
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
        assert image.width < 300
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert "Software" not in image.info


def test_equal_numbers_give_equal_bytes(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_user_s_settings_neither_show_nor_change(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    mine = {"text.usetex": True, "font.size": 30.0, "axes.facecolor": "black", "savefig.dpi": 10.0}
    with mpl.rc_context(mine):  # type: ignore[arg-type]
        draw(tmp_path / "b.png")
        assert {key: mpl.rcParams[key] for key in mine} == mine  # type: ignore[index]
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_threads_do_not_mix_their_settings(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    threads = [threading.Thread(target=draw, args=(tmp_path / f"{n}.png",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert len(list(tmp_path.iterdir())) == 4
    assert dict(mpl.rcParams) == before


def test_no_display_and_no_pyplot_is_touched(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from pellucid.draw.canvas import canvas\n"
        "with canvas(1, 1, Path(sys.argv[1])) as figure: figure.text(0, 0, 'x')\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=True, env=environment, timeout=60)


def test_a_failure_half_way_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), canvas(1, 1, path):
        1 / 0  # noqa: B018
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(PellucidError, match=r"a\.png: no space left on the disk"):
            draw(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def luminance(colour: str) -> float:
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("colour", "least"), [(BLUE, 3), (ORANGE, 3), (GREEN, 3), (GREY, 3), (INK, 7)])
def test_colours_stand_out_from_white(colour: str, least: float) -> None:
    """WCAG 2.1: contrast 3 for graphics, 7 for text."""
    assert 1.05 / (luminance(colour) + 0.05) >= least
    assert luminance(PALE) > luminance(colour)

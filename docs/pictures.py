"""Make the README's pictures: what a first run prints, as an image of the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

IMAGES = Path(__file__).parent / "images"
COMMAND = ["train", "fashion-mnist", "--net", "lenet5", "--epochs", "3"]
SIZE, MARGIN, COLUMNS = 15, 18, 118
INK, PAPER, PROMPT = "#d8dee9", "#1f2430", "#8fbcbb"


def draw(lines: list[str], path: Path) -> None:
    """Lines of text as a picture of a terminal."""
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans Mono"), SIZE)
    width = int(max(font.getlength(line) for line in lines)) + 2 * MARGIN
    pitch = round(SIZE * 1.35)
    image = Image.new("RGB", (width, pitch * len(lines) + 2 * MARGIN), PAPER)
    canvas = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        canvas.text((MARGIN, MARGIN + i * pitch), line, font=font, fill=PROMPT if line.startswith("$") else INK)
    image.quantize(16).save(path, optimize=True)


def wrapped(text: str) -> list[str]:
    """The text's lines, cut where a terminal of COLUMNS would cut them."""
    lines = []
    for line in text.rstrip().split("\n"):
        cut = line
        while len(cut) > COLUMNS:
            at = cut.rfind(" ", 0, COLUMNS)
            lines.append(cut[:at])
            cut = cut[at + 1 :]
        lines.append(cut.rstrip())
    return lines


def main() -> None:
    """Run the command in an empty folder and draw what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "pellucid", *COMMAND],
            cwd=folder,
            env={**os.environ, "COLUMNS": str(COLUMNS)},
            capture_output=True,
            text=True,
            check=True,
        )
        IMAGES.mkdir(exist_ok=True)
        draw(wrapped(f"$ pellucid {' '.join(COMMAND)}\n{done.stdout}"), IMAGES / "first-run.png")


if __name__ == "__main__":
    main()

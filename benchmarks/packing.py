"""Reading a folder of photographs: the one pass that decodes, audits and packs, against Pillow's bare decode + resize.

The work is a folder of JPEGs of 500 pixels, made of the photographs of flowers in PELLUCID_DATA: each is enlarged, cut,
turned in colour and saved anew, so that no two are alike. Arms take turns on the same files, all cores each; what is
compared is the ratio within a round. Pillow's arms are processes, one a core, so that Python's lock is no handicap to
them; they write nothing down. Then: training from the pack mapped into memory against training from memory, and the
time from the end of the imports to the first batch of a second run.

    PELLUCID_DATA=... python benchmarks/packing.py                    5,000 photographs; writes results/packing.json
    PELLUCID_DATA=... python benchmarks/packing.py --count 1000 --rounds 3 --out trial.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageEnhance

HERE = Path(__file__).parent
SIDE, NETWORK, CLASSES = 500, 64, 10


def make(folder: Path, count: int) -> list[Path]:
    """The folder of photographs: ten classes, ten in a hundred of each for val."""
    sources = sorted((Path(os.environ["PELLUCID_DATA"]) / "flower-photos-small").rglob("*.jpg"))
    generator = np.random.default_rng(0)
    made = []
    for n in range(count):
        with Image.open(sources[n % len(sources)]) as photo:
            share = generator.uniform(0.6, 0.95)
            width, height = photo.width * share, photo.height * share
            left, top = generator.uniform(0, photo.width - width), generator.uniform(0, photo.height - height)
            scale = SIDE / max(width, height)
            image = photo.convert("RGB").resize(
                (round(width * scale), round(height * scale)),
                Image.Resampling.BICUBIC,
                box=(left, top, left + width, top + height),
            )
        image = ImageEnhance.Color(image).enhance(generator.uniform(0.5, 1.5))
        # What a camera adds, so that a file has the size of a photograph's.
        noisy = np.asarray(image, np.int16) + generator.integers(-6, 7, (image.height, image.width, 1))
        path = folder / ("val" if n % 10 == 9 else "train") / f"class {n // 10 % CLASSES}" / f"{n:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=85)
        made.append(path)
    return made


def plain(path: str) -> int:
    """Pillow's decode of the whole picture, and its resize."""
    with Image.open(path) as image:
        return int(np.asarray(image.convert("RGB").resize((NETWORK, NETWORK), Image.Resampling.BILINEAR))[0, 0, 0])


def draft(path: str) -> int:
    """The same by way of a JPEG decoded at a reduced scale: what Pillow can do for who knows of it."""
    with Image.open(path) as image:
        image.draft("RGB", (2 * NETWORK, 2 * NETWORK))
        return int(np.asarray(image.convert("RGB").resize((NETWORK, NETWORK), Image.Resampling.BILINEAR))[0, 0, 0])


def reading(folder: Path, files: list[Path], rounds: int) -> dict[str, Any]:
    """Pictures a second of each arm."""
    from pellucid.data.audit import together
    from pellucid.data.cores import usable_cores
    from pellucid.data.pack import pack, pack_folder
    from pellucid.data.preprocess import Preprocess
    from pellucid.data.source import open_source

    source = open_source(folder)
    images, _ = together(source)
    preprocess = Preprocess((NETWORK, NETWORK), "crop", 3, (0.0,) * 3, (1.0,) * 3)
    names = [str(path) for path in files]
    speeds: dict[str, list[float]] = {"pellucid": [], "pillow": [], "pillow-draft": []}

    def ours() -> None:
        shutil.rmtree(pack_folder(source.place, preprocess), ignore_errors=True)
        assert pack(source.place, images, preprocess).opened == len(files)

    def pillows(one: Callable[[str], int]) -> Callable[[], None]:
        def work() -> None:
            pool.map(one, names, chunksize=16)

        return work

    with multiprocessing.get_context("spawn").Pool(usable_cores()) as pool:
        works = {"pellucid": ours, "pillow": pillows(plain), "pillow-draft": pillows(draft)}
        for number in range(rounds + 1):
            order = list(works)[number % 3 :] + list(works)[: number % 3]
            for arm in order:
                begun = time.perf_counter()
                works[arm]()
                speed = len(files) / (time.perf_counter() - begun)
                print(f"round {number} {arm}: {speed:,.0f} pictures/s", file=sys.stderr)
                if number:  # the first warms up
                    speeds[arm].append(speed)
    ratios = {
        arm: [a / b for a, b in zip(speeds["pellucid"], speeds[arm], strict=True)] for arm in ("pillow", "pillow-draft")
    }
    return {
        "pictures_per_second": {arm: _summary(values, 1) for arm, values in speeds.items()},
        "pellucid_over": {arm: _summary(values, 3) for arm, values in ratios.items()},
        "workers": usable_cores(),
    }


def training(folder: Path, rounds: int) -> dict[str, Any]:
    """Milliseconds of an epoch's batches and steps: pixels mapped from the pack, and in memory."""
    import torch

    from pellucid import nets
    from pellucid.data.audit import together
    from pellucid.data.batches import Batches
    from pellucid.data.load import Rows
    from pellucid.data.pack import pack
    from pellucid.data.preprocess import Preprocess
    from pellucid.data.source import open_source
    from pellucid.recipe import Recipe, settle
    from pellucid.training.loop import Training
    from pellucid.training.losses import make_loss

    source = open_source(folder)
    images, split_n = together(source)
    preprocess = Preprocess((NETWORK, NETWORK), "crop", 3, (0.5,) * 3, (0.25,) * 3)
    packed = pack(source.place, images, preprocess)
    chosen = np.flatnonzero(split_n == 0)
    assert packed.pixels is not None
    mapped = Rows(packed.pixels, packed.row_n[chosen])
    arms: dict[str, Any] = {"pack": mapped, "memory": torch.from_numpy(mapped.take(np.arange(len(chosen))))}
    recipe = settle(Recipe(), precision="float32", layout="nhwc", threads=torch.get_num_threads(), epochs=1, lr=0.01)
    labels = torch.from_numpy(images.labels[chosen])
    taken: dict[str, list[float]] = {arm: [] for arm in arms}
    for number in range(rounds + 1):
        for arm in list(arms) if number % 2 else list(arms)[::-1]:
            model = nets.build("quick", CLASSES, (3, NETWORK, NETWORK), seed=0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            batches = Batches(arms[arm], labels, preprocess, ("flip", "shift"), 128, 0)
            work = Training(model, batches, recipe, make_loss(recipe, [1] * CLASSES))
            begun = time.perf_counter()
            for steps, _ in enumerate(work.run_epoch()):
                if steps == 15:
                    break
            took = time.perf_counter() - begun
            if number:
                taken[arm].append(1000 * took)
    ratios = [a / b for a, b in zip(taken["pack"], taken["memory"], strict=True)]
    return {
        "milliseconds_of_16_steps": {arm: _summary(values, 1) for arm, values in taken.items()},
        "pack_over_memory": _summary(ratios, 4),
    }


_SECOND = """
import sys, time
import numpy as np
from pellucid.recipe import Recipe, settle
from pellucid.training.pictures import Terms, pictures
from pellucid.training.prepare import prepare
from pellucid.data.batches import Batches
import torch, pellucid.training.runs
begun = time.perf_counter()
task = prepare(settle(Recipe(), data=sys.argv[1], size=int(sys.argv[2])))
work = pictures(task, Terms(("leak", "label-conflict")))
while True:
    try:
        next(work)
    except StopIteration as end:
        shown = end.value
        break
pixels, labels = torch.from_numpy(shown.train.pixels), torch.from_numpy(shown.train.labels)
next(Batches(pixels, labels, shown.task.preprocess, ("flip", "shift"), 128, 0).epoch(0))
print(time.perf_counter() - begun)
"""


def second_start(folder: Path, rounds: int) -> dict[str, float]:
    """Seconds from the end of the imports to the first batch, when the pack is there."""
    seconds = []
    for _ in range(rounds + 1):
        command = [sys.executable, "-c", _SECOND, str(folder), str(NETWORK)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds.append(float(done.stdout))
    return _summary(seconds[1:], 3)


def _summary(values: list[float], digits: int) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "packing.json")
    chosen = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        os.environ["PELLUCID_CACHE"] = str(Path(place) / "cache")
        files = make(Path(place) / "photographs", chosen.count)
        from pellucid.data.cores import usable_cores
        from pellucid.training.machine import processor

        result = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"processor": processor(), "cores": usable_cores(), "load_before": round(load_before, 1)},
            "pillow": PIL.__version__,
            "photographs": {
                "count": chosen.count,
                "longer_side": SIDE,
                "mean_bytes": round(statistics.mean(path.stat().st_size for path in files)),
            },
            "network_side": NETWORK,
            "rounds": chosen.rounds,
            "reading": reading(Path(place) / "photographs", files, chosen.rounds),
            "training": training(Path(place) / "photographs", chosen.rounds),
            "seconds_to_first_batch_of_second_run": second_start(Path(place) / "photographs", chosen.rounds),
        }
    chosen.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

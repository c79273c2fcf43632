"""Images per second of training: Pellucid, a plain PyTorch loop, and Keras, on the same network, batch and data.

Each arm is a process that stays alive; in each round every arm in turn trains on the same number of pictures while the
others sleep, so that a slow minute of the machine falls on all of them. What is compared is the ratio within a round.

Beside them, in every round, the machine's peak is measured: a large product of matrices, on all cores, in each arm's
precision. An arm's share of it counts the arithmetic of convolutions and matrix products alone.

    make bench                       all networks, all arms (makes an environment with Keras first)
    python benchmarks/throughput.py --arms pellucid pytorch
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pellucid.data.load import load
from pellucid.data.preprocess import Preprocess
from pellucid.data.source import open_source
from pellucid.training.leave import machine_facts
from pellucid.training.peak import matrix_rate

HERE = Path(__file__).parent
BATCH = 128


@dataclasses.dataclass(frozen=True)
class Work:
    """One network on one data set; `images` a round are a few seconds of the slowest arm."""

    net: str
    data: str
    channels: int
    images: int
    side: int = 32


WORKS = (
    Work("cifar-cnn", "cifar10", 3, 50 * BATCH),
    Work("lenet5", "fashion-mnist", 1, 200 * BATCH),
    Work("resnet18", "cifar10", 3, 4 * BATCH, side=64),
)

#: Arm -> (script, arguments, environment). Pellucid's command sets how threads wait; the others run as people run them.
ARMS: dict[str, tuple[str, list[str], dict[str, str]]] = {
    "pellucid": ("arms/pellucid_arm.py", [], {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}),
    "pytorch": ("arms/pytorch_arm.py", [], {}),
    "keras-tensorflow": ("arms/keras_arm.py", [], {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}),
    "keras-jax": ("arms/keras_arm.py", [], {"KERAS_BACKEND": "jax"}),
}


class Arm:
    """A process that trains when it is told to."""

    def __init__(self, name: str, python: str, work: Work, data: Path) -> None:
        script, arguments, settings = ARMS[name]
        self.name = name
        self.process = subprocess.Popen(
            [python, str(HERE / script), work.net, str(data), str(BATCH), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **settings},
            text=True,
        )
        self.about = self._answer()

    def round(self) -> float:
        """Images per second of one round."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self._answer()["images_per_second"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: ended with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def prepare(work: Work, folder: Path) -> Path:
    """The pictures of a round as arrays that every arm can read: uint8 NHWC and labels."""
    source = open_source(work.data)
    images = source.splits["train"].take(np.arange(work.images))
    preprocess = Preprocess(
        size=(work.side, work.side),
        resize=source.resize,
        channels=1 if work.channels == 1 else 3,
        mean=(0.5,) * work.channels,
        std=(0.25,) * work.channels,
    )
    loaded = load(images, preprocess)
    path = folder / f"{work.net}.npz"
    np.savez(path, pixels=loaded.pixels, labels=loaded.labels)
    return path


def measure(work: Work, names: list[str], rounds: int, pythons: dict[str, str], folder: Path) -> dict[str, Any]:
    """Run the rounds; the first, which warms up, does not count."""
    data = prepare(work, folder)
    arms = [Arm(name, pythons[name], work, data) for name in names]
    speeds: dict[str, list[float]] = {name: [] for name in names}
    flop, precisions = float(arms[0].about["flop"]), {arm.name: arm.about["precision"] for arm in arms}
    peaks: dict[str, list[float]] = {precision: [] for precision in precisions.values()}
    try:
        for number in range(rounds + 1):
            # Each round begins with another arm, so that none always follows the same one.
            for arm in arms[number % len(arms) :] + arms[: number % len(arms)]:
                speed = arm.round()
                print(f"{work.net} round {number} {arm.name}: {speed:,.0f} images/s", file=sys.stderr)
                if number:
                    speeds[arm.name].append(speed)
            for precision, rates in peaks.items():
                if number:
                    rates.append(matrix_rate(precision, torch.device("cpu")))
    finally:
        for arm in arms:
            arm.close()
    ratios = {
        name: [a / b for a, b in zip(speeds["pellucid"], speeds[name], strict=True)]
        for name in names
        if name != "pellucid"
    }
    return {
        "net": work.net,
        "data": work.data,
        "batch": BATCH,
        "side": work.side,
        "images_per_round": work.images,
        "flop_per_image": flop,
        "peak_flop_per_second": {precision: statistics.median(rates) for precision, rates in peaks.items()},
        "arms": {
            arm.name: {
                **arm.about,
                "images_per_second": [round(s, 1) for s in speeds[arm.name]],
                "median": round(statistics.median(speeds[arm.name]), 1),
                "share_of_peak": round(
                    statistics.median(
                        speed * flop / peak
                        for speed, peak in zip(speeds[arm.name], peaks[precisions[arm.name]], strict=True)
                    ),
                    3,
                ),
            }
            for arm in arms
        },
        "pellucid_over": {
            name: {
                "median": round(statistics.median(values), 3),
                "min": round(min(values), 3),
                "max": round(max(values), 3),
            }
            for name, values in ratios.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--nets", nargs="+", default=[work.net for work in WORKS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keras-python", default=str(HERE / ".venv" / "bin" / "python"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "throughput.json")
    chosen = parser.parse_args()
    pythons = {name: chosen.keras_python if name.startswith("keras") else sys.executable for name in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        # Pellucid's arm, which counts the arithmetic, is always there.
        names = ["pellucid", *(name for name in chosen.arms if name != "pellucid")]
        works = [work for work in WORKS if work.net in chosen.nets]
        results = [measure(work, names, chosen.rounds, pythons, Path(folder)) for work in works]
    document = {
        "what": "images per second of training",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine_facts(),
        "rounds": chosen.rounds,
        "seed": 0,
        "results": results,
    }
    chosen.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    for result in results:
        print(result["net"], {name: arm["median"] for name, arm in result["arms"].items()}, result["pellucid_over"])


if __name__ == "__main__":
    main()

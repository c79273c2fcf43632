"""Images per second of training by one process and by two, which share every batch.

The arms: one process with one thread, one process with two, two processes with one each. The last two have the same two
cores: what the second process costs is the ratio between them, and the efficiency of either is its speed over that of
one thread, divided by two. Each arm's processes stay alive; in each round every arm in turn trains on the same batches
while the others sleep, and ratios are within a round. The losses stand beside: one process computes the same whatever
its threads, two draw other dropout masks and take batch statistics of their own halves.

    PELLUCID_DATA=... python benchmarks/scaling.py                          writes results/scaling.json
    PELLUCID_DATA=... python benchmarks/scaling.py --batches 4 --rounds 2 --out trial.json
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pellucid.data.load import load
from pellucid.data.preprocess import Preprocess
from pellucid.data.source import open_source
from pellucid.training.leave import machine_facts

HERE = Path(__file__).parent
BATCH, DATA = 128, "cifar10"
NETS = ("cifar-cnn", "quick")


class Shape(NamedTuple):
    """How many processes, of how many threads each."""

    processes: int
    threads: int


ARMS = {"1 process, 1 thread": Shape(1, 1), "1 process, 2 threads": Shape(1, 2), "2 processes, 1 thread": Shape(2, 1)}
FIRST, THREADS, PROCESSES = ARMS


class Arm:
    """Processes that train when they are told to."""

    def __init__(self, shape: Shape, net: str, data: Path) -> None:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self.members = [
            subprocess.Popen(
                [sys.executable, str(HERE / "arms/scaling_arm.py"), net, str(data), str(BATCH), str(shape.threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=_environment(shape, rank, port),
                text=True,
            )
            for rank in range(shape.processes)
        ]
        for member in self.members:
            _answer(member)

    def round(self) -> tuple[float, float]:
        """Images per second of one round, and the mean loss."""
        for member in self.members:
            assert member.stdin is not None
            member.stdin.write("go\n")
            member.stdin.flush()
        first, *_ = [_answer(member) for member in self.members]
        return float(first["images_per_second"]), float(first["loss"])

    def close(self) -> None:
        """End the processes."""
        for member in self.members:
            member.kill()
            member.wait()


def _environment(shape: Shape, rank: int, port: int) -> dict[str, str]:
    """As `pellucid` and torchrun set it."""
    group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": shape.processes, "LOCAL_WORLD_SIZE": shape.processes}
    where = {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
    waiting = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000", "OMP_NUM_THREADS": shape.threads}
    return {**os.environ, **{name: str(value) for name, value in {**group, **where, **waiting}.items()}}


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"an arm ended with {process.wait()}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def prepare(count: int, folder: Path) -> Path:
    """The pictures of a round as arrays: uint8 NHWC and labels."""
    source = open_source(DATA)
    preprocess = Preprocess((32, 32), source.resize, 3, (0.5,) * 3, (0.25,) * 3)
    loaded = load(source.splits["train"].take(np.arange(count)), preprocess)
    np.savez(folder / "data.npz", pixels=loaded.pixels, labels=loaded.labels)
    return folder / "data.npz"


def measure(net: str, data: Path, rounds: int) -> dict[str, Any]:
    """Run the rounds; the first, which warms up, does not count."""
    arms = {name: Arm(shape, net, data) for name, shape in ARMS.items()}
    speeds: dict[str, list[float]] = {name: [] for name in ARMS}
    losses: list[list[float]] = []
    try:
        for number in range(rounds + 1):
            losses.append([])
            # Each round begins with another arm, so that none always follows the same one.
            for name in [*ARMS][number % 3 :] + [*ARMS][: number % 3]:
                speed, loss = arms[name].round()
                losses[-1].append(loss)
                print(f"{net} round {number} {name}: {speed:,.0f} images/s, loss {loss:.4f}", file=sys.stderr)
                if number:
                    speeds[name].append(speed)
    finally:
        for arm in arms.values():
            arm.close()

    def over(name: str, other: str, divided: int = 1) -> dict[str, float]:
        values = [a / b / divided for a, b in zip(speeds[name], speeds[other], strict=True)]
        return {
            "median": round(statistics.median(values), 3),
            "min": round(min(values), 3),
            "max": round(max(values), 3),
        }

    return {
        "net": net,
        "data": DATA,
        "batch": BATCH,
        "arms": {
            name: {
                **shape._asdict(),
                "images_per_second": [round(speed, 1) for speed in speeds[name]],
                "median": round(statistics.median(speeds[name]), 1),
            }
            for name, shape in ARMS.items()
        },
        "efficiency": {name: over(name, FIRST, 2) for name in (THREADS, PROCESSES)},
        "processes_over_threads": over(PROCESSES, THREADS),
        "largest_difference_of_losses_in_the_first_round": max(losses[0]) - min(losses[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=50, help="a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "scaling.json")
    chosen = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(chosen.batches * BATCH, Path(folder))
        results = [measure(net, data, chosen.rounds) for net in NETS]
    document = {
        "what": "images per second of training, by one process and by two",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine_facts(), "load_before": round(load_before, 1)},
        "batches_per_round": chosen.batches,
        "rounds": chosen.rounds,
        "results": results,
    }
    chosen.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    for result in results:
        print(result["net"], result["efficiency"], result["processes_over_threads"])


if __name__ == "__main__":
    main()

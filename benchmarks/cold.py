"""Cold start: how long a command takes from nothing, and the most memory it holds; a new process each time.

Beside Pellucid's own commands stand an empty Python and `import torch`, which is most of what a prediction waits for.
What this process holds is counted as its children's, too, until they begin: so it imports nothing large before the
last has ended.

    python benchmarks/cold.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent


PICTURE = """
import sys
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
Image.fromarray(np.rint(load_digits().images[0] * 255 / 16).astype(np.uint8)).save(sys.argv[1])
"""


def commands(folder: Path) -> dict[str, list[str]]:
    """What is timed, by name; a small network is trained for it."""
    run, picture = folder / "run", folder / "digit.png"
    train = [sys.executable, "-m", "pellucid", "train", "digits", "--net", "lenet5", "--epochs", "1", "--out", str(run)]
    subprocess.run(train, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    subprocess.run([sys.executable, "-c", PICTURE, str(picture)], check=True)
    program = [sys.executable, "-m", "pellucid"]
    return {
        "python": [sys.executable, "-c", "pass"],
        "import torch": [sys.executable, "-c", "import torch"],
        "import pellucid": [sys.executable, "-c", "import pellucid"],
        "pellucid --help": [*program, "--help"],
        "pellucid train --help": [*program, "train", "--help"],
        "pellucid predict, one picture": [*program, "predict", str(run), str(picture)],
        "pellucid train, digits, lenet5, 1 epoch": [*program, "train", "digits", "--net", "lenet5", "--epochs", "1"],
    }


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds from start to end, and the most memory held, in MiB."""
    begun = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    _, status, used = os.wait4(child.pid, 0)
    took = time.perf_counter() - begun
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{command}: ended with {child.returncode}")
    # Linux counts in KiB.
    return took, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "cold.json")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found: dict[str, list[tuple[float, float]]] = {}
        every = commands(folder)
        # The first round reads the libraries from the disk, and does not count.
        for number in range(chosen.rounds + 1):
            for name, command in every.items():
                answer = timed(command, folder)
                if number:
                    found.setdefault(name, []).append(answer)
    results = {
        name: {
            "seconds": {
                "median": round(statistics.median(seconds), 3),
                "min": round(min(seconds), 3),
                "max": round(max(seconds), 3),
            },
            "peak_mib": round(statistics.median(memory)),
        }
        for name, answers in found.items()
        for seconds, memory in [tuple(zip(*answers, strict=True))]
    }
    from pellucid.training.leave import machine_facts

    document = {
        "what": "seconds and peak memory of commands begun from nothing, libraries in the page cache",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine_facts(),
        "rounds": chosen.rounds,
        "results": results,
    }
    chosen.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    for name, row in results.items():
        print(f"{name:40} {row['seconds']['median']:6.3f} s {row['peak_mib']:6,} MiB")


if __name__ == "__main__":
    main()

"""Time to accuracy: how long a fixed recipe trains until the mean accuracy on test, over its seeds, reaches a bar.

Of each arm the time from data on disk to the last step is counted, not the import of its libraries and not the look
at the test pictures. Pellucid's recipe is fixed beforehand (chosen on val) and its whole run counts; the others' rates
never change, so that each of their epochs is the end of a shorter recipe: theirs is the first epoch at which the mean
crosses. The arms take turns, seed by seed, and nothing else runs. The others read one file of plain arrays; Pellucid
the published files, those of CIFAR-10 unpacked, as people have them (unpacking the archive takes seconds, once).

    python benchmarks/accuracy.py                       every bar
    python benchmarks/accuracy.py --bars cifar10-71.6 --keras-python .venv/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.data.load import load
from pellucid.data.preprocess import Preprocess
from pellucid.data.source import open_source
from pellucid.training.leave import machine_facts

HERE = Path(__file__).parent
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


@dataclass(frozen=True)
class Bar:
    """An accuracy on the test pictures of a data set, and Pellucid's recipe for it."""

    data: str
    accuracy: float
    flags: tuple[str, ...]
    seeds: int
    others: bool = False
    """Whether the other arms run, too."""


#: Of the longer recipes.
LONGER = ("--label-smoothing", "0.1", "--val", "0.05")

#: The recipes were chosen on val.
BARS = {
    "cifar10-71.6": Bar(
        "cifar10",
        0.716,
        ("--net", "quick(32)", "--epochs", "1", "--augment", "flip", "--sample", "0.85"),
        5,
        others=True,
    ),
    "cifar10-90": Bar("cifar10", 0.90, (*LONGER, "--net", "quick(32,stride=1,middle=128)", "--epochs", "8"), 3),
    "cifar10-94": Bar("cifar10", 0.94, (*LONGER, "--net", "quick(64,stride=1,middle=256)", "--epochs", "18"), 1),
    "fashion-mnist-91": Bar("fashion-mnist", 0.91, ("--net", "quick(32)", "--epochs", "3", "--augment", "flip"), 5),
    "mnist-99": Bar("mnist", 0.99, ("--net", "quick(16)", "--epochs", "1"), 5),
}

#: Arm -> (script, seeds, epochs that it may take, environment).
OTHERS: dict[str, tuple[str, int, int, dict[str, str]]] = {
    "keras-tensorflow": ("keras_accuracy.py", 3, 7, {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}),
    "pytorch": ("pytorch_accuracy.py", 3, 7, {}),
    "keras-jax": ("keras_accuracy.py", 1, 7, {"KERAS_BACKEND": "jax"}),
}


def arrays(data: str, folder: Path) -> Path:
    """Train and test pictures as the other arms read them: one file of uint8 NHWC and labels."""
    source = open_source(data)
    parts: dict[str, Any] = {}
    for split in ("train", "test"):
        images = source.splits[split]
        loaded = load(images, Preprocess((32, 32), source.resize, 3, (0.5,) * 3, (0.25,) * 3))
        parts |= {f"{split}_pixels": np.asarray(loaded.pixels[:]), f"{split}_labels": loaded.labels}
    if source.splits.get("val") is not None:
        raise SystemExit(f"{data}: has a val split of its own, which the other arms would not see")
    np.savez(folder / "data.npz", **parts)
    return folder / "data.npz"


def pellucid(bar: Bar, seed: int) -> dict[str, Any]:
    """One run of Pellucid's fixed recipe."""
    command = [sys.executable, str(HERE / "arms" / "pellucid_accuracy.py"), bar.data, str(seed), *bar.flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, **WAITING}, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def other(name: str, python: str, path: Path, seed: int, epochs: int) -> dict[str, Any]:
    """The epochs of one run of another arm."""
    script, _, _, settings = OTHERS[name]
    command = [python, str(HERE / "arms" / script), str(path), str(seed), str(epochs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, **settings}, text=True, check=True)
    about, *rows = (json.loads(line) for line in done.stdout.splitlines())
    return {**about, "epochs": rows}


def crossing(runs: list[dict[str, Any]], accuracy: float) -> dict[str, Any] | None:
    """The first epoch at which the mean accuracy of the seeds is at the bar, and the median of its seconds."""
    for rows in zip(*(run["epochs"] for run in runs), strict=False):
        mean = statistics.mean(row["accuracy"] for row in rows)
        if mean >= accuracy:
            seconds = [row["seconds"] for row in rows]
            return {"epoch": rows[0]["epoch"], "mean_accuracy": mean, "seconds": spread(seconds)}
    return None


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure(
    bar: Bar,
    names: list[str],
    pythons: dict[str, str],
    folder: Path,
    before: dict[str, list[dict[str, Any]]],
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """All arms of one bar, seed by seed in turn, but for runs made before; what there is is kept after each."""
    runs: dict[str, list[dict[str, Any]]] = {"pellucid": [], **{name: [] for name in names if bar.others}}
    runs |= {name: list(found) for name, found in before.items()}
    path = arrays(bar.data, folder) if bar.others and names else None
    for seed in range(bar.seeds):
        for name, done in runs.items():
            if len(done) > seed or (name != "pellucid" and (seed >= OTHERS[name][1] or name not in names)):
                continue
            if name == "pellucid":
                done.append(pellucid(bar, seed))
                last = done[-1]
            else:
                assert path is not None
                done.append(other(name, pythons[name], path, seed, OTHERS[name][2]))
                last = done[-1]["epochs"][-1]
            print(f"{name} seed {seed}: {last['accuracy']:.4f} after {last['seconds']:.1f} s", file=sys.stderr)
            keep(summary(bar, runs))


def summary(bar: Bar, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What the runs of a bar come to."""
    ours = runs["pellucid"]
    accuracies = [run["accuracy"] for run in ours]
    mean = statistics.mean(accuracies)
    found: dict[str, Any] = {
        **asdict(bar),
        "pellucid": {
            "runs": ours,
            "mean_accuracy": mean,
            "sd": statistics.stdev(accuracies) if len(ours) > 1 else None,
            "mean_mirrored": statistics.mean(run["mirrored"] for run in ours) if "mirrored" in ours[0] else None,
            "reached": mean >= bar.accuracy,
            "seconds": spread([run["seconds"] for run in ours]),
        },
        "others": {},
    }
    for name, theirs in runs.items():
        if name == "pellucid" or not theirs:
            continue
        crossed = crossing(theirs, bar.accuracy)
        # The epoch at which the bar is crossed, or else the last: its time is then a lower bound.
        epoch = min(len(run["epochs"]) for run in theirs) if crossed is None else crossed["epoch"]
        # Within a round: the same seed number, one arm after the other.
        pairs = [run["epochs"][epoch - 1]["seconds"] / own["seconds"] for run, own in zip(theirs, ours)]  # noqa: B905  (fewer seeds)
        best = max(statistics.mean(row["accuracy"] for row in rows) for rows in zip(*(run["epochs"] for run in theirs)))  # noqa: B905
        found["others"][name] = {
            "runs": theirs,
            "crossed": crossed,
            "best_mean_accuracy": best,
            "pellucid_sooner": spread(pairs) if mean >= bar.accuracy else None,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", nargs="+", default=list(BARS), choices=list(BARS))
    parser.add_argument("--arms", nargs="*", default=list(OTHERS), choices=list(OTHERS))
    parser.add_argument("--go-on", action="store_true", help="keep the runs that an earlier call has made")
    parser.add_argument("--keras-python", default=str(HERE / ".venv" / "bin" / "python"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "accuracy.json")
    chosen = parser.parse_args()
    pythons = {name: chosen.keras_python if name.startswith("keras") else sys.executable for name in OTHERS}
    known = json.loads(chosen.out.read_text(encoding="utf-8")) if chosen.out.is_file() else {"results": {}}
    known["what"] = "seconds of training to an accuracy on test"
    machine = machine_facts()
    for name in chosen.bars:
        earlier, before = known["results"].get(name), {}
        if chosen.go_on and earlier is not None and earlier["flags"] == list(BARS[name].flags):
            before = {arm: found["runs"] for arm, found in earlier["others"].items()}
            before["pellucid"] = earlier["pellucid"]["runs"]

        def keep(result: dict[str, Any], name: str = name) -> None:
            """Write down what there is: the longest bars take hours."""
            date = datetime.now(UTC).date().isoformat()
            known["results"][name] = {"date": date, "machine": machine, **result}
            known["results"] = {bar: known["results"][bar] for bar in BARS if bar in known["results"]}
            chosen.out.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")

        with tempfile.TemporaryDirectory() as folder:
            measure(BARS[name], chosen.arms, pythons, Path(folder), before, keep)
        result = known["results"][name]
        print(name, {key: result["pellucid"][key] for key in ("mean_accuracy", "sd", "reached", "seconds")})
        print({arm: (it["crossed"], it["pellucid_sooner"]) for arm, it in result["others"].items()})


if __name__ == "__main__":
    main()

"""What each optimiser, schedule, loss and regulariser does to LeNet-5 on a fifth of Fashion-MNIST in five epochs.

One setting changed at a time from the defaults, everything else as `pellucid train` has it; validation accuracy of the
last epoch, mean and range over three seeds. A comparison of rules at their usual rates, not of rules at their best.

    python benchmarks/optimisation.py
"""

from __future__ import annotations

import json
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pellucid
from pellucid.recipe import Optimizer, Schedule
from pellucid.training.leave import machine_facts

SEEDS = (0, 1, 2)
OUT = Path(__file__).parent / "results" / "optimisation.json"

CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("defaults", {}),
    *((f"--optimizer {name}", {"optimizer": name}) for name in (*get_args(Optimizer), "adam+sgd@0.6")),
    # Plateau has no room in five epochs.
    *((f"--schedule {name}", {"schedule": name}) for name in get_args(Schedule) if name != "plateau"),
    ("--loss mse", {"loss": "mse"}),
    ("--loss focal", {"loss": "focal"}),
    ("--label-smoothing 0.1", {"label_smoothing": 0.1}),
    ("--weight-decay 0", {"weight_decay": 0.0}),
    ("--l1 1e-5", {"l1": 1e-5}),
    ("--clip-norm 1", {"clip_norm": 1.0}),
    ("--ema 0.99", {"ema": 0.99}),
    ("--batch-size 32", {"batch_size": 32}),
    ("--batch-size all", {"batch_size": "all"}),
]


def last_accuracy(settings: dict[str, Any], seed: int) -> tuple[float, float]:
    """Train and validation accuracy of the last epoch."""
    with tempfile.TemporaryDirectory() as folder:
        run = pellucid.train(
            "fashion-mnist", net="lenet5", sample=0.2, epochs=5, seed=seed, out=Path(folder) / "run",
            precision="float32", layout="nhwc", threads=1, **settings,
        )  # fmt: skip
        lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[-1])
    return row["accuracy"], row["val_accuracy"]


def main() -> None:
    rows = []
    for name, settings in CHANGES:
        pairs = [last_accuracy(settings, seed) for seed in SEEDS]
        val = [b for _, b in pairs]
        rows.append(
            {
                "change": name,
                "train_accuracy": round(statistics.mean(a for a, _ in pairs), 4),
                "val_accuracy": round(statistics.mean(val), 4),
                "val_min": round(min(val), 4),
                "val_max": round(max(val), 4),
            }
        )
        print(rows[-1], flush=True)
    document = {
        "what": "lenet5, a fifth of fashion-mnist, 5 epochs, accuracy of the last epoch",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine_facts(),
        "seeds": list(SEEDS),
        "rows": rows,
    }
    OUT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

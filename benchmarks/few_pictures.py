"""Few pictures: `pellucid train FOLDER` as it is, beside a plain ResNet-18 that is trained from scratch for as long.

Two folders: 320 photographs of five flowers (flower-photos-small), and 30 pictures each of 20 classes (the ten digits
of MNIST, the ten garments of Fashion-MNIST; another 30 each are val). Pellucid's defaults run first; the ResNet-18 then
gets the seconds that they took, by `--budget`, with its usual optimiser and with Adam, both through Pellucid's own
engine, so that it is the network and its recipe that differ. Accuracy on val after the last epoch, seed by seed in
turn. The defaults were chosen on val of flower-photos-small, among others; the 20 classes were not looked at before.

    PELLUCID_DATA=... python benchmarks/few_pictures.py [--seeds 5]        writes results/few_pictures.json
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import pellucid
from pellucid.data.load import load
from pellucid.data.preprocess import Preprocess
from pellucid.data.source import open_source
from pellucid.scores import spread
from pellucid.training.leave import machine_facts

OUT = Path(__file__).parent / "results" / "few_pictures.json"
EACH = 30

#: Arm -> settings; those without a network of their own set the seconds that the others get.
ARMS: dict[str, dict[str, Any]] = {
    "pellucid": {},
    "resnet18": {"net": "resnet18"},
    "resnet18, adam": {"net": "resnet18", "optimizer": "adam"},
}


def twenty_classes(folder: Path) -> Path:
    """`EACH` training pictures and as many of val of each digit and each garment, as PNG files."""
    shown = Preprocess((28, 28), "crop", 1, (0.5,), (0.5,))
    for data in ("mnist", "fashion-mnist"):
        source = open_source(data)
        loaded = load(source.splits["train"], shown)
        for label, name in enumerate(source.classes):
            of_it = np.flatnonzero(loaded.labels == label)[: 2 * EACH]
            for number, index in enumerate(of_it.tolist()):
                place = folder / ("train" if number < EACH else "val") / f"{data} {name.replace('/', ' ')}"
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.asarray(loaded.pixels[index])[..., 0]).save(place / f"{number}.png")
    return folder


def trained(data: Path, folder: Path, **settings: Any) -> dict[str, Any]:
    """What the last epoch of a run gave, and the seconds of all its epochs."""
    run = pellucid.train(data, out=folder, **settings)
    last = json.loads((run.folder / "metrics.jsonl").read_text("utf-8").splitlines()[-1])
    # A line's seconds are those from the first step on.
    return {"val_accuracy": last["val_accuracy"], "epochs": last["epoch"], "seconds": round(last["seconds"], 2)}


def measured(data: Path, folder: Path, seeds: int) -> dict[str, Any]:
    """All arms on one folder of pictures, seed by seed."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ARMS}
    for seed in range(seeds):
        seconds = 0.0
        for name, settings in ARMS.items():
            budget = {"budget": seconds} if "net" in settings else {}
            row = trained(data, folder / f"{name} {seed}", seed=seed, **budget, **settings)
            seconds = seconds or row["seconds"]
            runs[name].append(row)
            print(f"{data.name} seed {seed} {name}: {row}", flush=True)
    return {
        name: {"val_accuracy": spread([row["val_accuracy"] for row in rows]), "runs": rows}
        for name, rows in runs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    flowers = Path(os.environ["PELLUCID_DATA"]) / "flower-photos-small"
    with tempfile.TemporaryDirectory() as scratch:
        twenty = twenty_classes(Path(scratch) / "twenty-classes")
        results = {
            data.name: measured(data, Path(scratch) / f"runs of {data.name}", options.seeds)
            for data in (flowers, twenty)
        }
    document = {
        "what": "accuracy on val after training for as long as pellucid's defaults take",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine_facts(),
        "seeds": list(range(options.seeds)),
        "results": results,
    }
    OUT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""`pellucid train`, told by flags; one line with what its epochs, the whole command and the test pictures gave.

Where the recipe mirrors pictures, `mirrored` is the accuracy with the answers to a test picture and its mirror image
averaged: test-time augmentation, beside the accuracy and not part of it.

Counted from before the data are read: reading, looking for the quickest engine (nothing is remembered), every step, and
the look at val after each epoch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path

data, seed, flags = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
scratch = tempfile.TemporaryDirectory()
os.environ["PELLUCID_CACHE"] = scratch.name

import numpy as np  # noqa: E402

from pellucid.app.flags import read  # noqa: E402
from pellucid.bundle import evaluate, load  # noqa: E402
from pellucid.data.load import load as load_pictures  # noqa: E402
from pellucid.data.source import open_source  # noqa: E402
from pellucid.training import Epoch, Run, Started, run  # noqa: E402

options = read("train", [data, "--seed", str(seed), *flags])
begun = time.perf_counter()
found: dict[str, object] = {}
augment: tuple[str, ...] = ()
for event in run(options.the_recipe(), out=Path(scratch.name) / "run"):
    now = time.perf_counter() - begun
    if isinstance(event, Started):
        found["ready"] = now
        found["engine"] = dataclasses.asdict(event.recipe.engine)
        found["net"] = event.recipe.net
        augment = event.recipe.pictures.augment or ()
    elif isinstance(event, Epoch):
        found["seconds"] = now
        found["val_accuracy"] = event.row["val_accuracy"]
    elif isinstance(event, Run):
        found["whole"] = now
recogniser = load(Path(scratch.name) / "run")
answer = evaluate(Path(scratch.name) / "run", data, recogniser=recogniser)
found["accuracy"] = answer["accuracy"]
if "flip" in augment:
    test = open_source(data).splits[answer["split"]]
    loaded = load_pictures(test, recogniser.preprocess)
    pixels_nhwc = np.asarray(loaded.pixels[:])
    both_nk = sum(recogniser.probabilities(np.ascontiguousarray(way)) for way in (pixels_nhwc, pixels_nhwc[:, :, ::-1]))
    found["mirrored"] = float((np.argmax(both_nk, axis=1) == loaded.labels).mean())
print(json.dumps(found), flush=True)

"""`pellucid train`, told by flags; one line with what its epochs, the whole command and the test pictures gave.

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

from pellucid.app.flags import read  # noqa: E402
from pellucid.bundle import evaluate  # noqa: E402
from pellucid.training import Epoch, Run, Started, run  # noqa: E402

options = read("train", [data, "--seed", str(seed), *flags])
begun = time.perf_counter()
found: dict[str, object] = {}
for event in run(options.the_recipe(), out=Path(scratch.name) / "run"):
    now = time.perf_counter() - begun
    if isinstance(event, Started):
        found["ready"] = now
        found["engine"] = dataclasses.asdict(event.recipe.engine)
        found["net"] = event.recipe.net
    elif isinstance(event, Epoch):
        found["seconds"] = now
        found["val_accuracy"] = event.row["val_accuracy"]
    elif isinstance(event, Run):
        found["whole"] = now
found["accuracy"] = evaluate(Path(scratch.name) / "run", data)["accuracy"]
print(json.dumps(found), flush=True)

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.guard import few, guarded
from tests.fuzz.mutate import Edit, byte_edits, changed, json_edits, mutated

from pellucid import nets
from pellucid.recipe import Engine, Recipe
from pellucid.training.checkpoint import LAST
from pellucid.training.probe import _recall
from pellucid.training.restore import last_step
from pellucid.training.seeds import _read
from pellucid.training.session import finished

ROW = {
    "epoch": 1,
    "step": 4,
    "loss": 0.5,
    "accuracy": 0.5,
    "val_loss": 0.4,
    "val_accuracy": 0.6,
    "lr": 0.1,
    "seconds": 1.0,
}
RESULT: dict[str, Any] = {
    "run": "r",
    "head": None,
    "epoch": 1,
    "stopped": True,
    "notes": [],
    "split": "val",
    "accuracy": 0.5,
}
SEEDS = {"recipe": Recipe("digits", "lenet5").to_json(), "seeds": [0, 1, 2], "stopped": True}
ENGINES = {"key": [{"layout": "nhwc", "precision": "float32", "threads": 1, "milliseconds": 2.0, "chosen": True}]}


@given(
    edits=byte_edits,
    values=json_edits,
    which=st.sampled_from(("metrics", "result", "seeds", "engines")),
    inside=st.booleans(),
)
@few(200)
def test_run_folders(
    tmp_path_factory: pytest.TempPathFactory, edits: list[Edit], values: list[Edit], which: str, *, inside: bool
) -> None:
    folder = tmp_path_factory.getbasetemp() / "run"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "checkpoints").mkdir(parents=True)
    sound: dict[str, Any] = {"metrics": ROW, "result": RESULT, "seeds": SEEDS, "engines": ENGINES}
    data = changed(sound[which], values) if inside else mutated(json.dumps(sound[which]).encode(), edits)
    (folder / "recipe.json").write_text(json.dumps(Recipe("digits", "lenet5").to_json()), encoding="utf-8")
    (folder / "checkpoints" / LAST).write_bytes(b"")

    def read() -> Any:
        if which == "metrics":
            (folder / "metrics.jsonl").write_bytes(data + b"\n")
            return last_step(folder, nets.build("perceptron", 2, (1, 2, 2)))
        if which == "result":
            (folder / "result.json").write_bytes(data)
            return finished(folder, None)
        if which == "seeds":
            (folder / "seeds.json").write_bytes(data)
            return _read(folder)
        (folder / "engines.json").write_bytes(data)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PELLUCID_CACHE", str(folder))
            return _recall("key", [Engine("float32", "nhwc", "cpu", 1)])

    guarded(f"run folder {which}", folder, read)

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

import pellucid
from pellucid.bundle import compare, load, save
from pellucid.errors import DataError, UsageError
from pellucid.training import Run

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 50, 40)}
SETTINGS: dict[str, Any] = {
    "precision": "float32", "layout": "nchw", "threads": 1, "size": 8, "batch_size": 8, "val": 0.25,
}  # fmt: skip


def paint(folder: Path, seed: int, n: int = 12, spread: float = 120) -> Path:
    """Pictures of one colour a class, in so much noise that a network errs."""
    generator = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = np.array(colour) + generator.normal(0, spread, 3) + generator.normal(0, 30, (12, 12, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run, Path, Path]:
    """A run that learnt, one that hardly did, their pictures, and new ones."""
    base = tmp_path_factory.mktemp("compared")
    data = paint(base / "data", 0)
    good = pellucid.train(data, out=base / "good", epochs=8, **SETTINGS)
    poor = pellucid.train(data, out=base / "poor", epochs=1, lr=1e-6, seed=1, **SETTINGS)
    return good, poor, data, paint(base / "new", 9, n=40)


def right(run: Run, data: Path) -> dict[str, bool]:
    """Whether a run names each picture rightly, by predict: another way than that of eval."""
    files = sorted(data.rglob("*.png"))
    predictions = pellucid.load(run).predict(files)
    return {str(file): found.label == file.parent.name for file, found in zip(files, predictions, strict=True)}


def test_the_counts_are_those_of_predict_and_the_test_is_scipy_s(runs: tuple[Run, Run, Path, Path]) -> None:
    good, poor, _, new = runs
    found = compare(good, poor, new)
    a, b = right(good, new), right(poor, new)
    only_a, only_b = sum(a[f] and not b[f] for f in a), sum(b[f] and not a[f] for f in a)
    assert (found["only_a_right"], found["only_b_right"]) == (only_a, only_b)
    assert found["both_right"] + found["only_a_right"] == sum(a.values()) == round(found["a"]["accuracy"] * 120)
    assert found["both_right"] + found["both_wrong"] + only_a + only_b == found["n"] == 120
    assert found["p_value"] == pytest.approx(binomtest(only_a, only_a + only_b).pvalue, rel=1e-9)
    assert found["difference"] == pytest.approx(found["b"]["accuracy"] - found["a"]["accuracy"])
    assert found["difference_low"] < found["difference"] < found["difference_high"] < 0
    assert found["differ"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_each_side_is_what_eval_says(runs: tuple[Run, Run, Path, Path]) -> None:
    good, poor, _, new = runs
    found = compare(good, poor, new)
    for key, run in (("a", good), ("b", poor)):
        scores = pellucid.evaluate(run, new)
        assert {k: v for k, v in found[key].items() if k != "run"} == {
            k: v for k, v in scores.items() if k not in {"data", "split", "why"}
        }
        assert found[key]["run"] == os.fspath(run)
    assert found["split"] == "test"


def test_a_run_does_not_differ_from_itself(runs: tuple[Run, Run, Path, Path]) -> None:
    good, _, _, new = runs
    found = compare(good, good, new)
    assert (found["p_value"], found["difference"], found["differ"]) == (1.0, 0.0, False)
    assert found["only_a_right"] == found["only_b_right"] == 0


def test_only_pictures_that_neither_was_trained_on_count(runs: tuple[Run, Run, Path, Path]) -> None:
    good, poor, data, _ = runs
    held = []
    for run in (good, poor):
        rows = [line.split(",") for line in (run.folder / "images.csv").read_text("utf-8").splitlines()[1:]]
        held.append({file for file, _, split, _ in rows if split == "val"})
    assert held[0] != held[1]
    common = held[0] & held[1]
    if common:
        found = compare(good, poor, data)
        assert (found["n"], found["split"]) == (len(common), "val")
        assert found["why"] == "pictures that neither was trained on"
    else:
        with pytest.raises(DataError, match="no picture of it can judge both runs"):
            compare(good, poor, data)
    assert compare(good, good, data)["n"] == len(held[0])
    trained = compare(good, poor, data, split="train")
    assert trained["n"] == 36 - len(held[0] | held[1])
    assert trained["why"] == "pictures that both were trained on"


def test_runs_whose_held_out_pictures_have_none_in_common_are_refused(
    runs: tuple[Run, Run, Path, Path], tmp_path: Path
) -> None:
    good, _, data, _ = runs
    other = shutil.copytree(good.folder, tmp_path / "other")
    lines = (other / "images.csv").read_text("utf-8").splitlines()
    swapped = [line.replace(",val,", ",?,").replace(",train,", ",val,").replace(",?,", ",train,") for line in lines]
    (other / "images.csv").write_text("\n".join(swapped) + "\n", "utf-8")
    with pytest.raises(DataError, match="give pictures that both have not seen, or train both with the same --seed"):
        compare(good, other, data)


def test_classes_are_matched_by_name(runs: tuple[Run, Run, Path, Path], tmp_path: Path) -> None:
    """The same network with its classes in another order is the same network."""
    good, _, _, new = runs
    recogniser = load(good)
    turned = replace(recogniser, classes=recogniser.classes[::-1], model=_turned(recogniser.model))
    facts = {"data": "d", "version": "0", "epochs": 1, "epoch": 1, "seed": 0, "train_n": 1, "val": good.scores}
    picture = next(new.rglob("*.png"))
    save(turned, tmp_path / "turned", examples=[("a.png", picture.read_bytes())], facts=facts)
    found = compare(good, tmp_path / "turned", new)
    assert (found["only_a_right"], found["only_b_right"]) == (0, 0)
    assert found["b"]["accuracy"] == found["a"]["accuracy"]
    assert [row["class"] for row in found["b"]["per_class"]] == ["red", "green", "blue"]


def _turned(model: torch.nn.Module) -> torch.nn.Module:
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.copy_(last.weight.flip(0))
        last.bias.copy_(last.bias.flip(0))
    return model


def test_runs_of_other_classes_are_refused(runs: tuple[Run, Run, Path, Path], tmp_path: Path) -> None:
    good, _, data, new = runs
    two = shutil.copytree(data, tmp_path / "two")
    shutil.rmtree(two / "blue")
    (two / "green").rename(two / "violet")
    other = pellucid.train(two, out=tmp_path / "run", epochs=1, **SETTINGS)
    with pytest.raises(UsageError, match=r"only .*good knows 'blue', 'green'; only .*run knows 'violet'"):
        compare(good, other, new)


def test_a_bad_file_is_left_out_of_both(runs: tuple[Run, Run, Path, Path], tmp_path: Path) -> None:
    good, poor, _, new = runs
    data = shutil.copytree(new, tmp_path / "data")
    (data / "red" / "0.png").write_text("no picture")
    found = compare(good, poor, data)
    assert found["n"] == found["a"]["n"] == found["b"]["n"] == 119
    assert found["why"].count("red/0.png") == 1

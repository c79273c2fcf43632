from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pellucid
from pellucid.errors import DataError, UsageError
from pellucid.training import Run

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 50, 40)}
SETTINGS: dict[str, Any] = {
    "epochs": 3, "precision": "float32", "layout": "nchw", "threads": 1, "size": 16, "batch_size": 8,
}  # fmt: skip


def paint(folder: Path, seed: int, n: int = 12, names: dict[str, str] | None = None) -> Path:
    """Noisy pictures of one colour a class; `names` renames classes."""
    generator = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        place = folder / (names or {}).get(name, name)
        place.mkdir(parents=True)
        for i in range(n):
            noise = generator.normal(0, 40, (24, 24, 3))
            Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(place / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    base = tmp_path_factory.mktemp("flat")
    data = paint(base / "data", 0)
    return pellucid.train(data, out=base / "run", val=0.25, **SETTINGS), data


def test_the_folder_it_was_trained_on_gives_val(flat: tuple[Run, Path]) -> None:
    result, data = flat
    scores = pellucid.evaluate(result, data)
    assert scores["split"] == "val"
    assert scores["n"] == result.scores["n"] == 9
    assert scores["accuracy"] == result.scores["accuracy"]
    assert scores["loss"] == pytest.approx(result.scores["loss"], abs=1e-5)


def test_a_training_picture_is_known_again_wherever_it_lies(flat: tuple[Run, Path], tmp_path: Path) -> None:
    result, data = flat
    copied = tmp_path / "elsewhere"
    shutil.copytree(data, copied)
    for i, path in enumerate(sorted(copied.rglob("*.png"))):
        path.rename(path.with_name(f"renamed-{i}.png"))
    assert pellucid.evaluate(result, copied)["n"] == 9


def test_new_pictures_are_a_test(flat: tuple[Run, Path], tmp_path: Path) -> None:
    scores = pellucid.evaluate(flat[0], paint(tmp_path / "new", 1))
    assert (scores["split"], scores["n"]) == ("test", 36)


def test_training_pictures_only_when_asked_for(flat: tuple[Run, Path], tmp_path: Path) -> None:
    result, data = flat
    scores = pellucid.evaluate(result, data, split="train")
    assert (scores["split"], scores["n"]) == ("train", 27)
    # A folder of nothing but training pictures.
    record = (result.folder / "images.csv").read_text("utf-8").splitlines()
    for line in record[1:]:
        file, label, split, _ = line.split(",")
        if split == "train":
            (tmp_path / "only" / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(data / file, tmp_path / "only" / label)
    with pytest.raises(DataError, match="27 of its 27 were trained on"):
        pellucid.evaluate(result, tmp_path / "only")


def test_the_datas_own_splits_are_taken_at_their_word(tmp_path: Path) -> None:
    for i, split in enumerate(("train", "validation", "test")):
        paint(tmp_path / "data" / split, i, n=4 + 2 * i)
    result = pellucid.train(tmp_path / "data", out=tmp_path / "run", **SETTINGS)
    assert result.scores["n"] == 18
    assert [pellucid.evaluate(result, tmp_path / "data", split=s)["n"] for s in (None, "val", "train")] == [24, 18, 12]
    shutil.rmtree(tmp_path / "data" / "test")
    assert pellucid.evaluate(result, tmp_path / "data")["split"] == "val"
    with pytest.raises(DataError, match=r"has no test pictures|no test pictures"):
        pellucid.evaluate(result, tmp_path / "data", split="test")


def test_labels_are_matched_by_name_not_by_position(flat: tuple[Run, Path], tmp_path: Path) -> None:
    """A test folder that lacks the first class would shift every label of a trainer that counts folders."""
    new = paint(tmp_path / "new", 2, n=30)
    whole = pellucid.evaluate(flat[0], new)
    shutil.rmtree(new / "blue")
    part = pellucid.evaluate(flat[0], new)
    assert part["n"] == 60
    matrix = np.array(whole["confusion"])
    matrix[0] = 0
    assert part["confusion"] == matrix.tolist()


def test_a_class_the_network_does_not_know_is_refused(flat: tuple[Run, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="class 'gren' is not one the network was trained on: did you mean 'green'"):
        pellucid.evaluate(flat[0], paint(tmp_path / "new", 3, names={"green": "gren"}))


def test_a_bundle_on_its_own_says_that_it_cannot_know(flat: tuple[Run, Path], tmp_path: Path) -> None:
    result, data = flat
    shutil.copytree(result.folder / "bundle", tmp_path / "bundle")
    scores = pellucid.evaluate(tmp_path / "bundle", data)
    assert scores["n"] == 36
    assert "no record of the training" in scores["why"]


def test_predict_counts_what_eval_counts(flat: tuple[Run, Path], tmp_path: Path) -> None:
    new = paint(tmp_path / "new", 4)
    scores = pellucid.evaluate(flat[0], new)
    files = sorted(new.rglob("*.png"))
    predictions = pellucid.load(flat[0]).predict(files)
    right = sum(prediction.label == file.parent.name for prediction, file in zip(predictions, files, strict=True))
    assert right == round(scores["accuracy"] * scores["n"])


def test_an_unknown_split_is_refused(flat: tuple[Run, Path]) -> None:
    with pytest.raises(UsageError, match="--split 'dev': expected train, val or test"):
        pellucid.evaluate(*flat, split="dev")


def test_what_the_weights_were_trained_on_before_is_not_unseen(flat: tuple[Run, Path], tmp_path: Path) -> None:
    result, data = flat
    more = paint(tmp_path / "more", 5)
    later = pellucid.train(more, out=tmp_path / "later", val=0.25, weights=result, **{**SETTINGS, "epochs": 1})
    with pytest.raises(DataError, match="no val pictures: 27 of its 36 were trained on"):
        pellucid.evaluate(later, data)
    # What the first run held out is new to the weights.
    assert pellucid.evaluate(later, data, split="test")["n"] == 9
    assert pellucid.evaluate(later, data, split="train")["n"] == 27

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pellucid.data.named import open_named
from pellucid.errors import DataError, UsageError
from pellucid.recipe import Recipe, settle, usual_batch_size, usual_epochs
from pellucid.training.prepare import Task, name_of, prepare


def paint(folder: Path, sizes: dict[str, tuple[int, int]], n: int = 6, mode: str = "RGB") -> Path:
    for name, size in sizes.items():
        (folder / name).mkdir(parents=True)
        for i in range(n):
            Image.new(mode, size, i if mode == "L" else (i, i, i)).save(folder / name / f"{i}.png")
    return folder


def of(data: str | Path, **settings: Any) -> Task:
    return prepare(settle(Recipe(data=str(data)), **settings))


@pytest.mark.parametrize(
    ("size", "expected"), [((28, 28), 28), ((40, 60), 40), ((500, 333), 64), ((64, 64), 64), ((300, 20), 20)]
)
def test_small_pictures_keep_their_size_and_photographs_come_to_64(
    tmp_path: Path, size: tuple[int, int], expected: int
) -> None:
    task = of(paint(tmp_path / "d", {"a": size, "b": size}))
    assert task.preprocess.size == (expected, expected)
    assert task.recipe.pictures.size == expected


def test_grey_pictures_stay_grey_and_one_coloured_makes_all_colour(tmp_path: Path) -> None:
    grey = paint(tmp_path / "grey", {"a": (20, 20), "b": (20, 20)}, mode="L")
    assert of(grey).preprocess.channels == 1
    Image.new("RGB", (20, 20), (255, 0, 0)).save(grey / "a" / "red.png")
    assert of(grey).preprocess.channels == 3


def test_the_network_decides_what_it_fixes(tmp_path: Path) -> None:
    data = paint(tmp_path / "d", {"a": (50, 50), "b": (50, 50)})
    assert of(data, net="lenet5").preprocess.size == (32, 32)
    task = of(data, net="INPUT(1,10,14) -> FC(classes)")
    assert (task.preprocess.channels, task.preprocess.size) == (1, (10, 14))
    with pytest.raises(UsageError, match="--size 20: the network's INPUT fixes 14×10 pixels"):
        of(data, net="INPUT(1,10,14) -> FC(classes)", size=20)
    with pytest.raises(UsageError, match="2 channels, and pictures have 1"):
        of(data, net="INPUT(2,10,10) -> FC(classes)")


def test_what_is_given_stands(tmp_path: Path) -> None:
    data = paint(tmp_path / "d", {"a": (50, 50), "b": (50, 50)})
    task = of(data, size=24, resize="pad", augment=(), epochs=3, batch_size=5, lr=0.7)
    assert task.preprocess.size == (24, 24)
    assert task.preprocess.resize == "pad"
    assert task.recipe.pictures.augment == ()
    optimisation = task.recipe.optimisation
    assert (optimisation.epochs, optimisation.batch_size, optimisation.lr) == (3, 5, 0.7)


def test_digits_are_not_mirrored_and_photographs_are(tmp_path: Path) -> None:
    assert of("digits").recipe.pictures.augment == ("shift",)
    assert of(paint(tmp_path / "d", {"cat": (9, 9), "dog": (9, 9)})).recipe.pictures.augment == ("flip", "shift")


def test_val_is_split_off_train_only_where_there_is_none(tmp_path: Path) -> None:
    flat = of(paint(tmp_path / "flat", {"a": (9, 9), "b": (9, 9)}, n=10), val=0.2)
    assert (len(flat.train), len(flat.val), flat.val_split_off) == (16, 4, True)
    assert not set(flat.train.names) & set(flat.val.names)
    assert np.bincount(flat.val.labels).tolist() == [2, 2]
    for split, n in (("train", 5), ("val", 3), ("test", 4)):
        paint(tmp_path / "split" / split, {"a": (9, 9), "b": (9, 9)}, n=n)
    own = of(tmp_path / "split", val=0.2)
    assert (len(own.train), len(own.val), own.val_split_off) == (10, 6, False)


def test_the_split_follows_from_the_seed() -> None:
    first, again, other = (of("digits", seed=seed) for seed in (0, 0, 1))
    assert first.val.names == again.val.names
    assert first.val.names != other.val.names


def test_too_few_pictures_to_hold_some_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least two of each class"):
        of(paint(tmp_path / "d", {"a": (9, 9), "b": (9, 9)}, n=1))


def test_pictures_without_train_cannot_be_trained_on(tmp_path: Path) -> None:
    paint(tmp_path / "d" / "test", {"a": (9, 9), "b": (9, 9)})
    with pytest.raises(DataError, match="train"):
        of(tmp_path / "d")


def test_the_recipe_has_the_whole_path_of_a_folder_and_the_name_of_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "d", {"a": (9, 9), "b": (9, 9)})
    assert of("d").recipe.data == str(tmp_path / "d")
    assert of("digits").recipe.data == "digits"


def test_preparing_leaves_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    of("digits")
    assert torch.equal(torch.get_rng_state(), state)


def test_ones_own_network_is_checked_before_any_work() -> None:
    with pytest.raises(UsageError, match="10"):
        prepare(settle(Recipe(data="digits"), size=8), nn.Sequential(nn.Flatten(), nn.Linear(64, 7)))


@pytest.mark.parametrize(
    ("pictures", "epochs", "batch"), [(20, 40, 16), (320, 32, 32), (1300, 10, 128), (54_000, 10, 128)]
)
def test_few_pictures_are_seen_more_often_in_smaller_batches(pictures: int, epochs: int, batch: int) -> None:
    assert (usual_epochs(pictures), usual_batch_size(pictures)) == (epochs, batch)


def test_a_run_is_named_after_its_data_and_network() -> None:
    assert name_of(Recipe(data="/a/b/花 图", net="quick")) == "花 图-quick"
    assert name_of(Recipe(data="digits", net="INPUT -> FC(10)")) == "digits-net"


def test_published_test_pictures_are_not_looked_at() -> None:
    test = set(open_named("digits", fetch=False).splits["test"].names)
    task = of("digits")
    assert not test & (set(task.train.names) | set(task.val.names))


def test_deep_plain_networks_start_at_a_tenth_of_the_usual_rate_unless_told(tmp_path: Path) -> None:
    data = paint(tmp_path / "d", {"a": (50, 50), "b": (50, 50)})
    assert of(data, net="vgg11-bn").recipe.optimisation.lr == pytest.approx(0.005)
    assert of(data, net="vgg11-bn", lr=0.05).recipe.optimisation.lr == 0.05
    assert of(data, net="resnet20").recipe.optimisation.lr == 0.05

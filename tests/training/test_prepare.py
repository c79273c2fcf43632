from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pellucid import nets
from pellucid.bundle import Recogniser, save
from pellucid.bundle.folder import png
from pellucid.bundle.weights import IMAGENET_MEAN, IMAGENET_STD
from pellucid.data.named import open_named
from pellucid.data.preprocess import Preprocess
from pellucid.data.record import Row, write_record
from pellucid.data.split import digests
from pellucid.errors import DataError, UsageError
from pellucid.recipe import Recipe, settle, usual, usual_batch_size, usual_epochs
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


def test_quick_has_a_rate_that_grows_with_the_batch_and_a_higher_one_for_its_shifts() -> None:
    def rates(**settings: object) -> tuple[object, object]:
        rules = of("digits", **settings).recipe.optimisation
        return rules.lr, rules.bias_rate

    rate, raised = usual.QUICK_RATE, usual.QUICK_BIAS_RATE
    assert rates() == (128 * rate, raised)
    assert rates(batch_size=32) == (32 * rate, raised)
    assert rates(batch_size="all") == (usual.MOST * rate, raised)
    assert rates(net="quick(8)", lr=0.3, bias_rate=2.0) == (0.3, 2.0)
    # The rate was found for Nesterov's momentum; and adaptive steps are as long as their rate, whatever the gradient.
    assert rates(optimizer="sgd") == (0.1, raised)
    assert rates(optimizer="adam") == (0.001, 1.0)
    assert rates(net="perceptron") == (0.05, 1.0)


SHOWN = Preprocess((12, 12), "stretch", 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return paint(tmp_path / "d", {"a": (50, 40), "b": (50, 40)})


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A trained network as a bundle."""
    model = nets.build("cifar-cnn", 3, (3, 12, 12), seed=5).eval()
    val = {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "n": 9, "baseline": 0.5, "per_class": []}
    facts = {"data": "d", "version": "0", "epochs": 1, "epoch": 1, "seed": 0, "train_n": 9, "val": val}
    example = png(np.zeros((12, 12, 3), np.uint8))
    recogniser = Recogniser(model, ("a", "b", "c"), SHOWN, "cifar-cnn")
    save(recogniser, tmp_path / "run" / "bundle", examples=[("a.png", example)], facts=facts)
    return tmp_path / "run"


def file_of(path: Path, net: str, channels: int = 3, size: int = 32) -> Path:
    torch.save(nets.build(net, 1000, (channels, size, size), seed=5).state_dict(), path)
    return path


def test_a_run_decides_the_network_and_what_it_is_shown(data: Path, bundle: Path) -> None:
    task = of(data, weights=str(bundle))
    assert task.recipe.net == "cifar-cnn"
    assert (task.preprocess, task.normalised) == (SHOWN, True)
    assert task.recipe.pictures.size == 12
    assert task.weights is not None
    assert task.notes[0].startswith(f"begins with the weights of {bundle} (cifar-cnn)")
    assert "2 of 2 classes take over their row, by name" in task.notes[1]


def test_a_run_of_colour_pictures_is_shown_grey_ones_in_colour(bundle: Path) -> None:
    assert of("digits", weights=str(bundle)).preprocess == SHOWN


def test_what_is_given_stands_above_what_the_weights_were_shown(data: Path, bundle: Path) -> None:
    assert of(data, weights=str(bundle), resize="pad").preprocess.resize == "pad"
    with pytest.raises(UsageError, match=r"they are of cifar-cnn for pictures of 12×12 pixels .* leave --size away"):
        of(data, weights=str(bundle), size=20)
    with pytest.raises(UsageError, match=r"--net resnet20: the weights in .* are of cifar-cnn and do not fit it"):
        of(data, weights=str(bundle), net="resnet20")
    net = "INPUT(3,12,12) -> CONV(8) -> FC(classes)"
    with pytest.raises(UsageError, match="leave --net away"):
        of(data, weights=str(bundle), net=net)


@pytest.mark.parametrize("net", ["resnet20", "resnet18(d=true)"])
def test_a_file_is_known_by_its_names_and_gets_imagenets_normalisation(data: Path, tmp_path: Path, net: str) -> None:
    task = of(data, weights=str(file_of(tmp_path / "w.pth", net)))
    assert task.recipe.net == net
    assert (task.preprocess.mean, task.preprocess.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert task.normalised
    assert task.preprocess.size == (40, 40)
    assert "starts fresh" in task.notes[1]
    # Grey pictures are shown in colour to a network that knows nothing else.
    assert of("digits", weights=str(tmp_path / "w.pth"), size=32).preprocess.channels == 3


def test_published_googlenet_brings_the_normalisation_to_its_own(data: Path, tmp_path: Path) -> None:
    path = file_of(tmp_path / "w.pth", "googlenet")
    assert of(data, weights=str(path), size=64).recipe.net == "googlenet(transform-input=true)"
    assert of(data, weights=str(path), size=64, net="googlenet").recipe.net == "googlenet(transform-input=true)"
    plain = "googlenet(transform-input=false)"
    assert of(data, weights=str(path), size=64, net=plain).recipe.net == plain


def test_grey_weights_of_unknown_pictures_get_the_data_sets_own_statistics(data: Path, tmp_path: Path) -> None:
    task = of(data, weights=str(file_of(tmp_path / "w.pth", "resnet20", channels=1)))
    assert task.preprocess.channels == 1
    assert not task.normalised
    task = of(data, net="mlp", size=8, weights=str(file_of(tmp_path / "mlp.pth", "mlp", size=8)))
    assert not task.normalised


def test_weights_of_an_unknown_network_are_refused_with_what_to_do(data: Path, tmp_path: Path) -> None:
    path = file_of(tmp_path / "w.pth", "INPUT -> CONV(4) -> FC(classes)")
    with pytest.raises(DataError, match=r"--weights .*w\.pth: .* give the --net that they are of"):
        of(data, weights=str(path))


def test_the_settled_recipe_settles_to_itself(data: Path, tmp_path: Path, bundle: Path) -> None:
    for weights in (bundle, file_of(tmp_path / "w.pth", "googlenet")):
        task = of(data, weights=str(weights), size=None if weights is bundle else 64, freeze=2)
        assert str(task.recipe.weights).startswith(f"{weights}#sha256:")
        again = prepare(task.recipe)
        assert again.recipe == task.recipe
        assert again.preprocess == task.preprocess
        assert again.notes == task.notes


def test_a_head_alone_leaves_nothing_of_training_in_the_recipe(data: Path, bundle: Path) -> None:
    task = of(data, weights=str(bundle), head="svm")
    assert (task.recipe.optimisation.epochs, task.recipe.optimisation.lr, task.recipe.pictures.augment) == (
        None,
        None,
        (),
    )
    assert prepare(task.recipe).recipe == task.recipe


def test_a_head_needs_a_last_layer_to_stand_on(data: Path) -> None:
    with pytest.raises(UsageError, match="--head: the network does not end in a fully connected layer"):
        of(data, head="svm", net="INPUT -> CONV(2, kernel=1) -> POOL(avg, global)")


def test_preparing_does_not_touch_a_network_of_ones_own(data: Path, bundle: Path) -> None:
    model = nets.build("cifar-cnn", 2, (3, 12, 12), seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    task = prepare(settle(Recipe(data=str(data)), net="custom", weights=str(bundle), freeze="head"), model)
    assert task.preprocess == SHOWN
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_what_the_weights_were_trained_on_is_not_held_out(tmp_path: Path, bundle: Path) -> None:
    data = paint(tmp_path / "n", {"a": (30, 30), "b": (40, 40)}, n=20)
    whole = of(data, val=0.2)
    images = {name: digest for part in (whole.train, whole.val)
              for name, digest in zip(part.names, digests(part), strict=True)}  # fmt: skip
    chosen = sorted(images)[:8] + sorted(images)[20:36]
    write_record(bundle, [Row(name, "a", "train", images[name]) for name in chosen])
    task = of(data, val=0.2, weights=str(bundle), seed=3)
    assert len(task.val) == 8
    assert not set(task.val.names) & set(chosen)
    assert not any("flatters" in note for note in task.notes)
    # Where there are no others, it is said.
    task = of(data, val=0.4, weights=str(bundle), seed=3)
    assert len(task.val) == 16
    assert any(note.startswith("4 of the 16 val pictures were trained on before") for note in task.notes)

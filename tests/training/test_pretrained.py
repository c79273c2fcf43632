from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from pellucid import nets
from pellucid.bundle.weights import IMAGENET_MEAN, IMAGENET_STD, Published
from pellucid.data.preprocess import Preprocess
from pellucid.errors import DataError, UsageError
from pellucid.recipe import Recipe, settle
from pellucid.training.pretrained import begin, colours, follow, normalised

SHOWN = Preprocess((8, 8), "pad", 1, (0.3,), (0.4,))
CLASSES = ("a", "b", "c")


def quick(seed: int = 1, classes: int = 3) -> nn.Module:
    return nets.build("quick", classes, (1, 8, 8), seed=seed)


def of_run(**changes: Any) -> Published:
    return dataclasses.replace(Published(dict(quick().state_dict()), "runs/one", CLASSES, "quick", SHOWN), **changes)


def of_file(net: str = "resnet20", channels: int = 3) -> Published:
    return Published(dict(nets.build(net, 10, (channels, 32, 32), seed=1).state_dict()), "w.pth")


def test_the_network_is_the_weights_unless_another_is_named() -> None:
    assert follow(Recipe(), of_run(network="lenet5"), (8, 8)).net == "lenet5"
    assert follow(Recipe(net="mlp"), of_run(network="lenet5"), (8, 8)).net == "mlp"
    assert follow(Recipe(), of_file(), (64, 64)).net == "resnet20"
    assert follow(Recipe(net="resnet18"), of_file(), (64, 64)).net == "resnet18"
    unknown = Published({"a.weight": torch.zeros(3, 3)}, "w.pth")
    assert follow(Recipe(), unknown, (64, 64)).net == "quick"


@pytest.mark.parametrize("channels", [1, 3])
def test_the_channels_are_the_weights_own(channels: int) -> None:
    model = nets.build("resnet20", 5, (4 - channels, 32, 32))
    assert colours(model, of_file(channels=channels)) == channels
    assert colours(model, of_run()) == 1
    assert colours(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), Published({}, "w.pth")) is None


def test_a_run_brings_its_mean_and_deviation_and_a_file_imagenets() -> None:
    grey, colour = Preprocess((9, 7), "crop", 1, (0.0,), (1.0,)), Preprocess((9, 7), "crop", 3, (0.0,) * 3, (1.0,) * 3)
    assert normalised(grey, of_run(), 1) == Preprocess((9, 7), "crop", 1, (0.3,), (0.4,))
    assert normalised(colour, of_file(), 3) == Preprocess((9, 7), "crop", 3, IMAGENET_MEAN, IMAGENET_STD)
    # Of grey pictures nobody says what the weights saw, nor where the weights' channels are unknown.
    assert normalised(grey, of_file(channels=1), 1) is None
    assert normalised(colour, of_file(), None) is None


def test_the_weights_are_put_in_and_it_is_said() -> None:
    model = quick(seed=0)
    said = begin(model, Recipe(), of_run(), CLASSES)
    assert said == ("begins with the weights of runs/one (quick): 39 of the network's 39 tensors are taken over",)
    assert all(torch.equal(value, of_run().tensors[name]) for name, value in model.state_dict().items())


def test_known_classes_keep_their_rows_by_name() -> None:
    model, fresh, given = quick(0, 4), quick(0, 4), of_run().tensors
    said = begin(model, Recipe(), of_run(), ("c", "new", "a", "b"))
    assert said[1] == "head: 3 of 4 classes take over their row, by name; fresh: new"
    weight = model.get_parameter("head.weight").detach()
    assert torch.equal(weight[[0, 2, 3]], given["head.weight"][[2, 0, 1]])
    assert torch.equal(weight[1], fresh.get_parameter("head.weight")[1])


def test_weights_that_do_not_fit_are_refused_by_the_name_of_what_they_are() -> None:
    with pytest.raises(
        UsageError, match=r"--net lenet5: the weights in runs/one are of quick and do not fit it; leave"
    ):
        begin(nets.build("lenet5", 3, (1, 32, 32)), Recipe(net="lenet5"), of_run(), CLASSES)
    with pytest.raises(DataError, match=r"--weights w\.pth: the weights are of another network: .* give the --net"):
        begin(quick(), Recipe(), of_file(), CLASSES)
    # The same network at another size, where it has other layers.
    with pytest.raises(UsageError, match=r"of quick for pictures of 8×8 pixels and 1 channels, .* leave --size away"):
        begin(nets.build("quick", 3, (1, 64, 64)), Recipe(), of_run(), CLASSES)


def test_what_is_frozen_is_said_in_layers_and_parameters() -> None:
    model = quick()
    said = begin(model, settle(Recipe(), freeze=2), of_run(), CLASSES)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    every = sum(p.numel() for p in model.parameters())
    assert 0 < trained < every
    assert said[-1] == f"frozen: 2 of 5 layers and blocks; {trained:,} of {every:,} parameters are trained"
    head = begin(quick(), settle(Recipe(), freeze="head"), of_run(), CLASSES)
    assert head[-1].startswith("frozen: all but the classifier; 771 of ")


@pytest.mark.parametrize(
    ("settings", "flag"), [({"freeze": 2}, "--freeze 2"), ({"lr_decay_by_depth": 0.5}, "--lr-decay-by-depth 0.5")]
)
def test_sparing_layers_that_know_nothing_is_remarked_upon(settings: dict[str, Any], flag: str) -> None:
    recipe = settle(Recipe(), **settings)
    remark = f"{flag} without --weights: the lower layers know nothing yet worth keeping"
    assert remark in begin(quick(), recipe, None, CLASSES)
    assert remark not in begin(quick(), recipe, of_run(), CLASSES)
    assert begin(quick(), settle(Recipe(), freeze=0), None, CLASSES)[-1].startswith("frozen: 0 of 5")


def test_nothing_to_begin_with_is_nothing_to_say() -> None:
    model = quick(seed=0)
    assert begin(model, Recipe(), None, CLASSES) == ()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), quick(seed=0).parameters(), strict=True))


def test_a_head_left_behind_is_mentioned() -> None:
    assert begin(quick(), Recipe(), of_run(head=True), CLASSES)[-1].startswith("the head on top of runs/one is left")


def test_too_many_frozen_layers_are_refused() -> None:
    with pytest.raises(UsageError, match="so at most 4 can be frozen"):
        begin(quick(), settle(Recipe(), freeze=5), of_run(), CLASSES)

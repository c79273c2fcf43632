from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import nn

from pellucid import nets
from pellucid.bundle.fit import fit_weights, heads, input_channels, network_of, published_net
from pellucid.errors import DataError, UsageError

SMALL = "INPUT -> CONV(4) -> POOL -> FC(6) -> FC(classes)"


def net(classes: int, seed: int = 0, text: str = SMALL, channels: int = 3) -> nn.Module:
    return nets.build(text, classes, (channels, 8, 8), seed=seed)


def copy(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", ["fc"]),
        ("vgg11", ["classifier.6"]),
        ("googlenet", ["aux1.fc2", "aux2.fc2", "fc"]),
        ("googlenet(aux=false)", ["fc"]),
        ("quick", ["head"]),
        ("lstm", ["fc"]),
        ("INPUT -> CONV(8) -> CONV(5, kernel=1) -> POOL(avg, global)", ["conv2"]),
    ],
)
def test_the_head_is_the_last_layer_that_gives_one_number_a_class(name: str, expected: list[str]) -> None:
    with torch.device("meta"):
        assert heads(nets.build(name, 5, (3, 32, 32))) == expected


def test_a_network_without_such_a_layer_has_no_head() -> None:
    assert heads(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())) == []


def test_the_same_network_takes_over_everything() -> None:
    model, given = net(3), copy(net(3, seed=1))
    fitted = fit_weights(model, given, classes=3)
    assert unchanged(model, given)
    assert set(fitted.loaded) == set(given)
    assert (fitted.new_head, fitted.left_over, fitted.missing) == ((), (), ())
    assert fitted.sentences == (f"{len(given)} of the network's {len(given)} tensors are taken over",)


def test_a_classifier_of_other_classes_starts_fresh_and_says_so() -> None:
    model, given = net(3), copy(net(10, seed=1))
    before = copy(model)
    fitted = fit_weights(model, given, classes=3)
    after = model.state_dict()
    for name in after:
        assert torch.equal(after[name], before[name] if name.startswith("fc2.") else given[name])
    assert fitted.new_head == ("fc2",)
    assert "fc2 has 10 outputs there and 3 here: it starts fresh" in fitted.sentences


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model."])
def test_what_wrappers_put_before_names_is_taken_away(prefix: str) -> None:
    model, given = net(3), copy(net(3, seed=1))
    wrapped = {prefix + name: tensor for name, tensor in given.items()} | {"n_averaged": torch.tensor(9)}
    fitted = fit_weights(model, wrapped, classes=3)
    assert unchanged(model, given)
    assert fitted.left_over == ("n_averaged",)
    assert any("n_averaged" in sentence for sentence in fitted.sentences)


def test_a_network_whose_own_names_begin_so_keeps_them() -> None:
    model = nn.ModuleDict({"model": nn.Linear(2, 2), "module": nn.Linear(2, 2)})
    given = {name: torch.rand_like(tensor) for name, tensor in model.state_dict().items()}
    fit_weights(model, given, classes=2)
    assert unchanged(model, given)
    with pytest.raises(DataError, match="twice"):
        fit_weights(model, {**given, "module.model.weight": torch.zeros(2, 2)}, classes=2)


def test_classes_take_their_rows_by_name() -> None:
    model, given = net(4), copy(net(3, seed=1))
    before = copy(model)
    fitted = fit_weights(model, given, classes=["new", "c", "a", "also fresh"], known=["a", "b", "c"])
    for part in ("fc2.weight", "fc2.bias"):
        after = model.state_dict()[part]
        assert torch.equal(after[1], given[part][2])
        assert torch.equal(after[2], given[part][0])
        assert torch.equal(after[0], before[part][0])
        assert torch.equal(after[3], before[part][3])
    assert fitted.new_head == ("fc2",)
    assert "fc2: 2 of 4 classes take over their row, by name; fresh: new, also fresh" in fitted.sentences


def test_classes_in_another_order_are_all_taken_over() -> None:
    model, given = net(2), copy(net(2, seed=1))
    fitted = fit_weights(model, given, classes=["a fresh one", "b"], known=["b", "a fresh one"])
    assert torch.equal(model.state_dict()["fc2.bias"], given["fc2.bias"].flip(0))
    assert fitted.new_head == ()


def test_classes_of_other_names_start_fresh_though_they_are_as_many() -> None:
    model, given = net(2), copy(net(2, seed=1))
    before = copy(model)
    fitted = fit_weights(model, given, classes=["cat", "dog"], known=["0", "1"])
    assert torch.equal(model.state_dict()["fc2.weight"], before["fc2.weight"])
    assert fitted.new_head == ("fc2",)
    assert "fc2: the weights know none of these classes: it starts fresh" in fitted.sentences
    with pytest.raises(DataError, match="which name 3 classes"):
        fit_weights(model, given, classes=["cat", "dog"], known=["0", "1", "2"])


def test_features_without_a_classifier_are_enough() -> None:
    model = net(3)
    given = {name: tensor for name, tensor in copy(net(3, seed=1)).items() if not name.startswith("fc2")}
    fitted = fit_weights(model, given, classes=3)
    assert fitted.new_head == ("fc2",)
    assert "the weights have no classifier: fc2 starts fresh" in fitted.sentences
    # Under another name it is no classifier of this network, and the rest is suspect too.
    with pytest.raises(DataError, match=r"missing fc2\.weight 3×6, fc2\.bias 3; no place for classifier\.weight 9×6"):
        fit_weights(net(3), {**given, "classifier.weight": torch.zeros(9, 6)}, classes=3)


def test_another_network_is_refused_by_name_and_shape_and_nothing_changes() -> None:
    model = net(3)
    before, given = copy(model), copy(net(3, seed=1))
    given["conv1.weight"] = torch.zeros(5, 3, 3, 3)
    del given["fc1.bias"]
    given["fc9.weight"] = torch.zeros(2, 2)
    with pytest.raises(DataError) as caught:
        fit_weights(model, given, classes=3)
    assert str(caught.value) == (
        "the weights are of another network: conv1.weight is 5×3×3×3 there and 4×3×3×3 here; missing fc1.bias 6; "
        "no place for fc9.weight 2×2: give the --net that they are of"
    )
    assert unchanged(model, before)


def test_a_deeper_network_of_the_same_names_is_refused() -> None:
    given = copy(nets.build("resnet32", 3, (3, 8, 8)))
    with pytest.raises(DataError, match=r"no place for layer1\.3\.conv1\.weight 16×16×3×3.* and \d+ more"):
        fit_weights(nets.build("resnet20", 3, (3, 8, 8)), given, classes=3)


def test_weights_for_colour_say_so_to_a_network_for_grey() -> None:
    given, grey = copy(net(3)), net(3, channels=1)
    assert input_channels(grey, given) == 3
    assert input_channels(grey, {f"module.{name}": tensor for name, tensor in given.items()}) == 3
    assert input_channels(nn.Linear(2, 2), given) is None
    with pytest.raises(DataError, match="they are for pictures of 3 channels"):
        fit_weights(grey, given, classes=3)


def test_values_that_are_no_numbers_are_refused() -> None:
    model, given = net(3), copy(net(3))
    given["fc1.bias"][0] = torch.nan
    before = copy(model)
    with pytest.raises(DataError, match=r"fc1\.bias holds values that are no numbers"):
        fit_weights(model, given, classes=3)
    assert unchanged(model, before)


def test_counters_of_batches_are_not_needed() -> None:
    model = nets.build("resnet20", 3, (3, 8, 8))
    given = {name: t for name, t in copy(model).items() if not name.endswith("num_batches_tracked")}
    assert all(name.endswith("num_batches_tracked") for name in fit_weights(model, given, classes=3).missing)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11-bn"])
def test_torchvisions_weights_load_by_name(torchvision: ModuleType, name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        oracle = getattr(torchvision.models, name.replace("-", "_"))(num_classes=11)
    given = oracle.state_dict()
    ours = nets.build(name, 4, (3, 32, 32), seed=0)
    fitted = fit_weights(ours, given, classes=4)
    (top,) = fitted.new_head
    assert [name for name in ours.state_dict() if name not in fitted.loaded] == [f"{top}.weight", f"{top}.bias"]
    # The same features, with a new classifier on both.
    oracle.get_submodule(top).weight = ours.get_submodule(top).weight
    oracle.get_submodule(top).bias = ours.get_submodule(top).bias
    last = oracle.get_submodule(top)
    last.out_features = 4
    x_nchw = torch.randn(2, 3, 40, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(ours.eval()(x_nchw), oracle.eval()(x_nchw))


def test_torchvisions_googlenet_with_and_without_its_auxiliary_heads(torchvision: ModuleType) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        oracle = torchvision.models.googlenet(
            num_classes=11, aux_logits=True, init_weights=False, transform_input=True
        ).eval()
    given = oracle.state_dict()
    whole = nets.build("googlenet", 4, (3, 32, 32))
    assert fit_weights(whole, given, classes=4).new_head == ("aux1.fc2", "aux2.fc2", "fc")
    bare = nets.build("googlenet(aux=false)", 4, (3, 32, 32))
    fitted = fit_weights(bare, given, classes=4)
    assert fitted.left_over
    assert all(name.startswith("aux") for name in fitted.left_over)
    same = nets.build(published_net("googlenet"), 11, (3, 32, 32)).eval()
    fit_weights(same, given, classes=11)
    x_nchw = torch.randn(2, 3, 40, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(same(x_nchw), oracle(x_nchw))
    without = {name: tensor for name, tensor in given.items() if not name.startswith("aux")}
    with pytest.raises(DataError, match=r"--net 'googlenet\(aux=false\)'"):
        fit_weights(whole, without, classes=4)


def test_the_names_of_timms_resnets() -> None:
    """A stem of three convolutions and averaging shortcuts, numbered as timm numbers them (its resnet50d)."""
    names = nets.build("resnet50(d=true)", 3, (3, 32, 32)).state_dict().keys()
    stem = {name for name in names if name.startswith("conv1.") and not name.startswith("conv1.1.")}
    assert {name for name in stem if name.endswith("weight")} == {f"conv1.{i}.weight" for i in (0, 3, 4, 6)}
    for block in ("layer1.0", "layer2.0", "layer3.0", "layer4.0"):
        short = {name for name in names if name.startswith(f"{block}.downsample") and name.endswith("weight")}
        assert short == {f"{block}.downsample.1.weight", f"{block}.downsample.2.weight"}


def test_published_googlenet_expects_its_own_normalisation() -> None:
    assert published_net("googlenet") == "googlenet(transform-input=true)"
    assert published_net("googlenet(aux=false)") == "googlenet(aux=false, transform-input=true)"
    for net_ in (
        "googlenet(transform-input=false)", "googlenet-paper", "resnet18", SMALL, "custom", "vgg11(dropout=0.1)",
    ):  # fmt: skip
        assert published_net(net_) == net_
    with pytest.raises(UsageError, match="did you mean 'googlenet'"):
        published_net("googlenett")


@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet50", "resnet34(d=true)", "vgg11", "vgg16-bn", "googlenet", "googlenet(aux=false)", "resnet20",
     "lenet5", "lstm"],
)  # fmt: skip
@pytest.mark.parametrize("channels", [3, 1])
def test_the_network_that_weights_are_of_is_found(name: str, channels: int) -> None:
    with torch.device("meta"):
        # Other classes than it is looked for with, and a wrapper's prefix.
        given = {f"module.{key}": t for key, t in nets.build(name, 1000, (channels, 32, 32)).state_dict().items()}
    assert network_of(given, (32, 32)) == name


def test_weights_of_no_named_network_are_not_given_a_name() -> None:
    assert network_of(copy(net(3)), (32, 32)) is None
    with torch.device("meta"):
        given = dict(nets.build("resnet18", 5, (3, 32, 32)).state_dict())
    del given["layer3.0.conv1.weight"]
    assert network_of(given, (32, 32)) is None


def test_features_alone_are_known_again_too() -> None:
    with torch.device("meta"):
        given = dict(nets.build("resnet18", 5, (3, 32, 32)).state_dict())
    assert network_of({name: t for name, t in given.items() if not name.startswith("fc.")}, (32, 32)) == "resnet18"

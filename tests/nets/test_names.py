"""Networks by name: their published parameter counts, their options, and what each mistake is told."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pellucid import nets
from pellucid.errors import UsageError
from pellucid.nets.names import FAMILIES, named
from pellucid.nets.options import option_name, options_of


def count(net: str, classes: int = 1000, side: int = 64, channels: int = 3) -> int:
    """Parameters; nothing is held or drawn."""
    with torch.device("meta"):
        model = nets.build(net, classes, (channels, side, side))
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("net", "parameters"),
    [
        # torchvision's documentation.
        ("vgg11", 132_863_336),
        ("vgg13", 133_047_848),
        ("vgg16", 138_357_544),
        ("vgg19", 143_667_240),
        ("vgg11-bn", 132_868_840),
        ("vgg13-bn", 133_053_736),
        ("vgg16-bn", 138_365_992),
        ("vgg19-bn", 143_678_248),
        ("googlenet", 13_004_888),
        ("googlenet(aux=false)", 6_624_904),
        # The network of table 1 with biases.
        ("googlenet-paper(aux=false)", 6_998_552),
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        # Three 3×3 kernels (3·32 + 32·32 + 32·64)·9, two normalisations of 32, in place of 7×7·3·64.
        ("resnet50(d=true)", 25_557_032 - 9_408 + 28_512 + 128),
        ("resnet18(d=true)", 11_689_512 - 9_408 + 28_512 + 128),
        ("resnet50(zero-gamma=true)", 25_557_032),
    ],
)
def test_published_parameter_counts(net: str, parameters: int) -> None:
    assert count(net) == parameters


@pytest.mark.parametrize(
    ("net", "n", "millions"), [("resnet20", 3, 0.27), ("resnet32", 5, 0.46), ("resnet56", 9, 0.85)]
)
def test_cifar_resnets_have_the_size_of_table_6(net: str, n: int, millions: float) -> None:
    kernels = 9 * (3 * 16 + 2 * n * 16**2 + 16 * 32 + (2 * n - 1) * 32**2 + 32 * 64 + (2 * n - 1) * 64**2)
    norms = 2 * (16 + 2 * n * (16 + 32 + 64))
    assert count(net, classes=10, side=32) == kernels + norms + 65 * 10
    assert round(count(net, classes=10, side=32) / 1e6, 2) == millions


def test_counts_without_convolution() -> None:
    assert count("perceptron", classes=10, side=28, channels=1) == 7_850
    assert count("mlp", classes=10, side=28, channels=1) == 785 * 512 + 513 * 10
    assert count("mlp(300, 100)", classes=10, side=28, channels=1) == 785 * 300 + 301 * 100 + 101 * 10
    # A gate of a recurrent cell has a row of W_xh, one of W_hh and two biases a unit; an LSTM has four gates.
    first, other = 128 * (28 + 128 + 2), 128 * (128 + 128 + 2)
    for cell, gates in (("rnn", 1), ("lstm", 4)):
        wanted = gates * (first + 4 * other) + 129 * 10
        assert count(f"{cell}(units=128, layers=5)", classes=10, side=28, channels=1) == wanted


@pytest.mark.parametrize(
    ("net", "text"),
    [
        ("resnet50(d=TRUE)", "resnet50(d=true)"),
        ("resnet50 ( zero-gamma=true, d=false )", "resnet50(zero-gamma=true)"),
        ("lstm(units=128,layers=5,uniform=.1)", "lstm(units=128, layers=5, uniform=0.1)"),
        ("googlenet(transform-input=true, aux=false)", "googlenet(aux=false, transform-input=true)"),
        ("vgg11(dropout=0)", "vgg11(dropout=0)"),
        ("resnet20()", "resnet20"),
    ],
)
def test_options_are_read_and_written(net: str, text: str) -> None:
    with torch.device("meta"):
        model = nets.build(net, 10, (3, 32, 32))
        assert model.text == text
        assert nets.build(model.text, 10, (3, 32, 32)).text == text
    assert nets.input_of(net) == (None, None, None)


def test_the_options_of_an_mlp_become_its_layers() -> None:
    model = nets.build("mlp(20, 10, activation=tanh, dropout=0.2)", 3, (1, 4, 4))
    assert model.text == (
        "INPUT -> FC(20, activation=tanh) -> DROPOUT(0.2) -> FC(10, activation=tanh) -> DROPOUT(0.2) -> FC(classes)"
    )
    assert [type(part) for part in nets.build("perceptron", 3, (1, 4, 4)).children()] == [nn.Flatten, nn.Linear]


def refused(net: str) -> str:
    with pytest.raises(UsageError) as caught:
        nets.build(net, 10, (3, 64, 64))
    return str(caught.value)


def test_mistakes_are_shown_where_they_stand() -> None:
    assert refused("resnet50(zero-gama=true)") == (
        "column 10 of the network: resnet50 has no option 'zero-gama': did you mean 'zero-gamma'?\n"
        "  resnet50(zero-gama=true)\n"
        "           ^^^^^^^^^"
    )
    assert refused("lenet5(units=3)").startswith("column 8 of the network: lenet5 has no option 'units': it has none\n")
    assert refused("resnet18(d=yes)").startswith("column 12 of the network: d of resnet18 is true | false, not 'yes'")
    assert "column 15 of the network: units of lstm is given twice" in refused("lstm(units=3, units=4)")
    assert "resnet18 has no place for '3': write which option it is, say d=3" in refused("resnet18(3)")
    assert "this '(' is never closed" in refused("mlp(3")
    assert "nothing follows the options of mlp; take '*' out, or write layers" in refused("mlp(3)*2")
    assert "'resnet51' is no network Pellucid knows: did you mean 'resnet" in refused("resnet51(d=true)")
    assert "'' is no network Pellucid knows" in refused("(3)")


def test_options_that_make_no_network() -> None:
    assert refused("lstm(units=100000)") == (
        "lstm(units=100000, layers=1) has 40,077,600,000 parameters, and 2,147,483,648 is the most: "
        "write fewer units, say lstm(units=128)"
    )
    assert "make fc2 smaller" in refused("mlp(100000, 100000)")
    with pytest.raises(UsageError, match=r"googlenet\(transform-input=true\) is for the three channels .* not 1×64×64"):
        nets.build("googlenet(transform-input=true)", 10, (1, 64, 64))


@pytest.mark.parametrize(
    ("net", "smallest"), [("vgg11", 32), ("googlenet", 15), ("googlenet-paper", 31), ("resnet18", 1), ("resnet20", 1)]
)
def test_images_too_small(net: str, smallest: int) -> None:
    """The limit is the true one: torch refuses one row less, and one row more than nothing comes through."""
    assert smallest == named(net)[1].SMALLEST
    with torch.device("meta"):
        model = nets.build(net, 10, (3, smallest, smallest)).eval()
        assert model(torch.zeros(2, 3, smallest, smallest)).shape == (2, 10)
        if smallest > 1:
            with pytest.raises(RuntimeError, match="too small"):
                model(torch.zeros(2, 3, smallest - 1, smallest - 1))
            with pytest.raises(nets.ShapeError) as caught:
                nets.build(net, 10, (3, smallest - 1, 64))
            assert str(caught.value) == (
                f"{net} takes images from {smallest}×{smallest}, not {smallest - 1}×64, which its strides and pools "
                f"leave nothing of: make them larger, say --size {smallest}"
            )


@pytest.mark.parametrize("name", FAMILIES)
def test_every_option_has_a_default_that_reads_back(name: str) -> None:
    _, family = named(name)
    for item in options_of(family):
        default = getattr(family, item.name)
        for value in default if item.metadata["many"] else (default,):
            shown = str(value).lower()
            assert item.metadata["values"].read(shown) == value or not value, (name, option_name(item))

"""The table of layers: every entry reads, writes itself, and is made of modules that exist."""

from __future__ import annotations

import dataclasses

import pytest
from torch import nn

from pellucid.errors import UsageError
from pellucid.nets import layers
from pellucid.nets.layer import TooSmallError
from pellucid.nets.notation import Item, read
from pellucid.nets.options import Values
from pellucid.nets.sizes import ShapeError
from pellucid.nets.specs import LAYERS, BatchNorm, Dropout, Flatten, FullyConnected, GroupNorm
from pellucid.nets.specs_conv import Conv, SeparableConv, TransposedConv
from pellucid.nets.specs_pool import Pool, PyramidPool, SoftPool

EXAMPLES = {
    "conv": "CONV(4, kernel=2, norm=batch, activation=gelu)",
    "dwconv": "DWCONV(2, kernel=5, stride=2, norm=layer)",
    "sepconv": "SEPCONV(6, dilation=2, norm=group, bias=false)",
    "tconv": "TCONV(6, kernel=3, padding=1, output-padding=1, groups=3)",
    "pool": "POOL(3, avg, stride=1)",
    "softpool": "SOFTPOOL(3, stride=2)",
    "spp": "SPP(3, 1, avg)",
    "globalpool": "GLOBALPOOL(max)",
    "fc": "FC(7, activation=silu, bias=false)",
    "dropout": "DROPOUT(0.1)",
    "batchnorm": "BATCHNORM",
    "layernorm": "LAYERNORM",
    "groupnorm": "GROUPNORM(3)",
    "lrn": "LRN(3, alpha=0.001, beta=0.5, k=2)",
    "flatten": "FLATTEN",
}


@pytest.mark.parametrize("word", LAYERS)
def test_every_layer_in_the_table_reads_and_is_made_of_modules(word: str) -> None:
    (item,) = read(f"INPUT -> {EXAMPLES[word]}").layers.nodes
    assert isinstance(item, Item)
    before = (9,) if isinstance(item.layer, FullyConnected) else (3, 8, 8)
    for part in item.layer.parts(before):
        assert hasattr(layers, part.make) or hasattr(nn, part.make)
    assert item.layer.after(before)
    assert all(field.metadata["values"] for field in dataclasses.fields(item.layer))
    assert (item.layer.WORD.lower(), item.layer.STEM.upper()) == (item.layer.STEM, item.layer.WORD)


def test_parts_are_named_after_their_layer() -> None:
    parts = Conv(8, activation="leaky-relu", norm="batch").parts((3, 8, 8))
    assert [(part.suffix, part.make) for part in parts] == [
        ("", "convolution"),
        ("_norm", "BatchNorm2d"),
        ("_leaky_relu", "LeakyReLU"),
    ]
    assert [part.suffix for part in Conv(8, activation="none").parts((3, 8, 8))] == [""]
    pools = [Pool(), Pool(kind="avg"), Pool("global"), Pool("global", "max")]
    assert [pool.parts((3, 8, 8))[0].make for pool in pools] == [
        "MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d",
    ]  # fmt: skip
    assert [part.make for part in BatchNorm().parts((16,))] == ["BatchNorm1d"]


def test_shapes_after() -> None:
    assert Conv(8, 5, padding="valid").after((3, 32, 20)) == (8, 28, 16)
    assert Conv(8, 5, stride=2).after((3, 33, 20)) == (8, 17, 10)
    assert Pool().after((3, 7, 8)) == (3, 3, 4)
    assert Pool("global").after((3, 7, 8)) == (3, 1, 1)
    assert Flatten().after((3, 7, 8)) == (168,)
    assert Dropout().after((3, 7, 8)) == (3, 7, 8)


@pytest.mark.parametrize(
    ("layer", "shape", "said"),
    [
        (
            Conv(120, 5, padding="valid"),
            (16, 4, 9),
            "a 5×5 kernel does not fit the 4×9 map that reaches it: ⌊(4 − 5 + 2·0)/1⌋ + 1 = 0; "
            "write CONV(120, kernel=4, padding=valid) or padding=same",
        ),
        (
            Conv(8, 3, padding=1, dilation=4),
            (1, 6, 6),
            "a 3×3 kernel, spread over 9 places by dilation 4, does not fit the 6×6 map that reaches it: "
            "⌊(6 − ((3 − 1)·4 + 1) + 2·1)/1⌋ + 1 = 0; write CONV(8, kernel=2, padding=1, dilation=4) or padding=same",
        ),
        (
            Pool(3),
            (8, 2, 5),
            "a 3×3 window does not fit the 2×5 map that reaches it: ⌊(2 − 3 + 2·0)/3⌋ + 1 = 0; "
            "write POOL or leave it away (POOL? does so by itself)",
        ),
        (
            Pool(),
            (8, 1, 1),
            "a 2×2 window does not fit the 1×1 map that reaches it: ⌊(1 − 2 + 2·0)/2⌋ + 1 = 0; "
            "leave it away (POOL? does so by itself)",
        ),
    ],
)
def test_too_small(layer: Conv | Pool, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(TooSmallError) as caught:
        layer.after(shape)
    assert str(caught.value) == said


def test_the_suggested_layer_fits() -> None:
    """What a message tells to write must be right, whatever the numbers."""
    for size in range(1, 9):
        for kernel in range(2, 12):
            for dilation in (1, 2, 3):
                for padding in (0, 1, 2):
                    layer = Conv(1, kernel, padding=padding, dilation=dilation)
                    try:
                        layer.after((1, size, size))
                    except TooSmallError as error:
                        suggestion = str(error).split("write ")[1].split(" or padding")[0]
                        (item,) = read(f"INPUT -> {suggestion}").layers.nodes
                        assert isinstance(item, Item)
                        assert min(item.layer.after((1, size, size))) >= 1


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(ShapeError) as caught:
        Conv(12, groups=6).after((8, 5, 5))
    assert str(caught.value) == "groups=6 does not divide the 8 channels that reach it; write CONV(12, groups=4)"


def test_what_the_new_layers_refuse() -> None:
    with pytest.raises(ShapeError, match=r"^5 groups do not divide the 12 channels .*; write GROUPNORM\(4\)$"):
        GroupNorm(5).after((12, 3, 3))
    with pytest.raises(ShapeError, match=r"groups=6 does not divide the 8 channels .*; write TCONV\(12, groups=4\)"):
        TransposedConv(12, groups=6).after((8, 5, 5))
    with pytest.raises(TooSmallError) as caught:
        TransposedConv(4, padding=3).after((8, 2, 5))
    assert str(caught.value) == (
        "its padding takes away more than there is of a 2×5 map: (2 − 1)·2 − 2·3 + 2 = −2; write TCONV(4)"
    )
    with pytest.raises(TooSmallError, match=r"write SEPCONV\(8, kernel=4, padding=valid\) or padding=same"):
        SeparableConv(8, 5, padding="valid").after((3, 4, 9))
    with pytest.raises(TooSmallError, match=r"write SOFTPOOL or leave it away \(SOFTPOOL\? does so by itself\)"):
        SoftPool(3).after((3, 2, 9))
    for text, said in {
        "TCONV(4, output-padding=2)": "write at most output-padding=1",
        "TCONV(4, groups=3)": "groups=3 does not divide its 4 filters; write groups=2",
        "SPP(0)": "levels of SPP is a whole number from 1 to 100, not '0'",
        "SPP(max, 2, avg)": "levels of SPP is a whole number from 1 to 100, not 'avg'",
        "CONV(4, norm=instance)": "norm of CONV is none | batch | layer | group, not 'instance'",
        "DEPTHWISECONV2D(3)": "write DWCONV",
        "LRN(alpha=0)": "alpha of LRN is a number above 0, not '0'",
        "TCONV": "TCONV does not say its filters; write, say, TCONV(32)",
    }.items():
        with pytest.raises(UsageError) as refused:
            read(f"INPUT -> {text}")
        assert said in str(refused.value)
    with pytest.raises(UsageError, match="already flattened"):
        PyramidPool().after((10,))


def test_pyramids_have_one_length_at_any_size() -> None:
    assert PyramidPool().after((256, 13, 13)) == PyramidPool().after((256, 10, 7)) == (256 * 21,)
    # The paper's pyramid of 50 bins, on the 256 maps of its networks: 12,800 numbers.
    assert PyramidPool((6, 3, 2, 1)).after((256, 13, 13)) == (12_800,)


def test_a_flattened_map_is_no_map() -> None:
    with pytest.raises(UsageError, match="already flattened to 10 numbers; write POOL before FLATTEN"):
        Pool().after((10,))


def test_values_say_what_they_take() -> None:
    assert str(Values(words=("same", "valid"), whole=(0, 10))) == "a whole number from 0 to 10 or same | valid"
    assert str(Values(share=True)) == "a number from 0 up to, but not including, 1"
    assert Values(words=("true", "false")).read("False") is False
    assert Values(whole=(1, 3)).read("nan") is None
    assert Values(whole=(1, 3)).read("inf") is None
    assert Values(share=True).read("1e-3") == 0.001

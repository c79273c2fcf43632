"""Residual blocks and their options: what the shortcuts do, what ResNet-D changes, where a block begins."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pellucid import nets
from pellucid.nets.resnet import BasicBlock, Bottleneck, PaddedShortcut


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_option_a_takes_every_second_place_and_adds_zeros() -> None:
    x_nchw = noise(2, 3, 5, 6)
    y_nchw = PaddedShortcut(3, 7, 2)(x_nchw)
    assert y_nchw.shape == (2, 7, 3, 3)
    for i in range(3):
        for j in range(3):
            assert torch.equal(y_nchw[:, :3, i, j], x_nchw[:, :, 2 * i, 2 * j])
    assert not y_nchw[:, 3:].any()
    assert not list(nets.build("resnet20", 10, (3, 32, 32)).get_submodule("layer2.0.downsample").parameters())


@pytest.mark.parametrize("net", ["resnet18", "resnet50", "resnet20"])
def test_zero_gamma_begins_each_block_as_its_shortcut(net: str) -> None:
    model = nets.build(f"{net}(zero-gamma=true)", 10, (3, 32, 32), seed=0)
    blocks = [part for part in model.modules() if isinstance(part, (BasicBlock, Bottleneck))]
    assert len(blocks) == {"resnet18": 8, "resnet50": 16, "resnet20": 9}[net]
    for block in blocks:
        channels = next(block.parameters()).shape[1]
        x_nchw = noise(4, channels, 6, 6)
        shortcut = x_nchw if block.downsample is None else block.downsample(x_nchw)
        torch.testing.assert_close(block(x_nchw), shortcut.relu())
    plain = nets.build(net, 10, (3, 32, 32), seed=0)
    assert all(
        (part.last_norm.weight == 1).all() for part in plain.modules() if isinstance(part, (BasicBlock, Bottleneck))
    )


@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
def test_resnet_d(size: tuple[int, int]) -> None:
    """Names as timm writes them, each stage of the size it has without the option."""
    d, plain = (nets.build(f"resnet50(d={flag})", 10, (3, *size), seed=0).eval() for flag in ("true", "false"))
    x = y = noise(1, 3, *size)
    with torch.no_grad():
        for (name, part), (_, other) in zip(d.named_children(), plain.named_children(), strict=True):
            x, y = part(x), other(y)
            assert x.shape == y.shape, name
    names = dict(d.named_modules())
    assert [type(names[f"conv1.{n}"]) for n in range(7)] == [
        nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d,
    ]  # fmt: skip
    assert isinstance(names["layer1.0.downsample.0"], nn.Identity)
    assert isinstance(names["layer2.0.downsample.0"], nn.AvgPool2d)
    shortcut = names["layer2.0.downsample.1"]
    assert isinstance(shortcut, nn.Conv2d)
    assert (shortcut.kernel_size, shortcut.stride) == ((1, 1), (1, 1))


def test_the_averaging_shortcut_hears_every_number() -> None:
    """Of the plain one's input three places of four have no gradient."""
    x_nchw = noise(1, 256, 8, 8).requires_grad_()
    for flag, heard in (("true", 64), ("false", 16)):
        block = nets.build(f"resnet50(d={flag})", 10, (3, 64, 64), seed=0).eval().get_submodule("layer2.0.downsample")
        (gradient,) = torch.autograd.grad(block(x_nchw).square().sum(), x_nchw)
        assert int((gradient.abs().sum((0, 1)) > 0).sum()) == heard


@pytest.mark.parametrize(("net", "image"), [("resnet20", (3, 16, 16)), ("resnet18(d=true)", (3, 33, 32))])
def test_exports(net: str, image: tuple[int, int, int]) -> None:
    model = nets.build(net, 10, image, seed=0).eval()
    x_nchw = noise(2, *image)
    torch.testing.assert_close(torch.export.export(model, (x_nchw,)).module()(x_nchw), model(x_nchw))

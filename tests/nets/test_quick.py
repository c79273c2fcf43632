"""The default network at many image sizes, layouts and precisions."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pellucid import nets
from pellucid.nets.quick import EXTRA_BLOCK_ABOVE, LARGEST_MAP, stem_stride


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_about_three_hundred_thousand_parameters() -> None:
    # Worked out by hand: convolutions without bias, two numbers a channel in each normalisation, and the head.
    expected = 27 * 16 + 2 * 16
    for before, width in ((16, 32), (32, 64), (64, 128)):
        expected += 9 * before * width + 9 * width * width + 4 * width
    expected += 128 * 10 + 10
    model = nets.build("quick", 10, (3, 32, 32))
    assert sum(weight.numel() for weight in model.parameters()) == expected == 292_954


@pytest.mark.parametrize(
    ("height", "width"),
    [(8, 8), (9, 9), (28, 28), (32, 32), (64, 64), (97, 97), (224, 224), (8, 50), (33, 20), (300, 70)],
)
def test_takes_images_of_many_sizes(height: int, width: int) -> None:
    model = nets.build("quick", 7, (3, height, width), seed=0)
    logits = model(images(2, 3, height, width))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
    nets.check(model, (3, height, width), 7)


def test_the_stem_brings_large_images_down() -> None:
    for side in range(8, 1000):
        stride = stem_stride(side)
        assert -(-side // stride) <= LARGEST_MAP
        assert stride == 1 or -(-side // (stride // 2)) > LARGEST_MAP
    for side, stride, kernel in ((32, 1, 3), (64, 2, 5), (97, 4, 7), (224, 8, 9)):
        conv = nets.build("quick", 2, (3, side, 2 * side)).get_submodule("stem.conv")
        assert isinstance(conv, nn.Conv2d)
        assert (conv.stride[0], conv.kernel_size[0]) == (stride, kernel)


def test_a_large_map_gets_one_more_block() -> None:
    for side in (EXTRA_BLOCK_ABOVE, EXTRA_BLOCK_ABOVE + 1):
        model = nets.build("quick", 2, (3, side, side))
        assert hasattr(model, "block4") == (side > EXTRA_BLOCK_ABOVE)


def test_small_images_are_refused() -> None:
    with pytest.raises(nets.ShapeError) as caught:
        nets.build("quick", 10, (1, 7, 28))
    assert str(caught.value) == "quick takes images from 8×8, not 7×28: make them larger, say --size 16"


def test_runs_on_other_sizes_than_it_was_built_for() -> None:
    model = nets.build("quick", 5, (3, 32, 32), seed=0).eval()
    for height, width in ((8, 8), (40, 24), (96, 96)):
        assert model(images(1, 3, height, width)).shape == (1, 5)


def test_layouts_and_precisions_agree() -> None:
    model = nets.build("quick", 10, (3, 32, 32), seed=0)
    # In training mode the normalisation uses the batch; its running figures change, so each arm has its own copy.
    x_nchw = images(4, 3, 32, 32)
    exact = copy.deepcopy(model).double()(x_nchw.double())
    plain = copy.deepcopy(model)(x_nchw)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)(  # type: ignore[call-overload]
        x_nchw.contiguous(memory_format=torch.channels_last)
    )
    with torch.autocast("cpu", torch.bfloat16):
        half = copy.deepcopy(model)(x_nchw)
    assert exact.dtype == torch.float64
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(plain.double(), exact, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(last, plain, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(half.double(), exact, rtol=0.1, atol=0.1)


def test_trains_in_bfloat16_and_channels_last() -> None:
    model = nets.build("quick", 10, (3, 32, 32), seed=0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cpu", torch.bfloat16):
        loss = nn.functional.cross_entropy(model(images(4, 3, 32, 32)), torch.tensor([0, 1, 2, 3]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


def test_the_numbers_keep_their_spread() -> None:
    """He's initialisation: the mean square after a convolution and its ReLU is about that of what came in."""
    model = nets.build("quick", 10, (16, 32, 32), seed=0)
    conv = model.get_submodule("stem.conv")
    y_noij = torch.relu(conv(images(8, 16, 32, 32)))[:, :, 1:-1, 1:-1]
    assert 0.5 < y_noij.square().mean().item() < 2


def test_the_residual_branch_is_added() -> None:
    """With a branch that gives only zeros, a block is its first half; the branch's own numbers come on top."""
    block = nets.build("quick", 2, (3, 16, 16), seed=0).get_submodule("block1").eval()
    x_nchw = images(2, 16, 16, 16)
    half = torch.relu(block.get_submodule("norm")(block.get_submodule("pool")(block.get_submodule("conv")(x_nchw))))
    torch.testing.assert_close(block(x_nchw), half + block.get_submodule("residual")(half))
    nn.init.zeros_(block.get_parameter("residual.norm.weight"))
    torch.testing.assert_close(block(x_nchw), half)


def test_names() -> None:
    model = nets.build("quick", 10, (3, 32, 32))
    assert [name for name, _ in model.named_children()] == [
        "stem", "block1", "block2", "block3", "pool", "flatten", "head",
    ]  # fmt: skip
    assert set(dict(model.named_parameters())) >= {"stem.conv.weight", "block2.residual.norm.bias", "head.weight"}


def test_exports() -> None:
    model = nets.build("quick", 3, (1, 8, 8), seed=0).eval()
    x_nchw = images(2, 1, 8, 8)
    torch.testing.assert_close(torch.export.export(model, (x_nchw,)).module()(x_nchw), model(x_nchw))

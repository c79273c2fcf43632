"""The default network at many image sizes, layouts and precisions."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pellucid import nets
from pellucid.nets.quick import LARGEST_MAP, LARGEST_STRIDE, SCALE, Block, stem_stride


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def whitened(net: str = "quick(16)", image: tuple[int, int, int] = (3, 32, 32), seed: int = 0) -> nets.Network:
    model = nets.build(net, 10, image, seed=seed)
    model.look_at(images(64, *image))
    return model


def test_its_parameters_counted_by_hand() -> None:
    # Patches of 4×4×3, in 24 directions and their opposites; convolutions without bias, two numbers a channel in each
    # normalisation, and the head.
    expected, before = 48 * 48, 48
    for width in (64, 128, 256):
        expected += 9 * before * width + 9 * width * width + 4 * width
        before = width
    expected += 256 * 10 + 10
    model = nets.build("quick", 10, (3, 32, 32))
    assert sum(weight.numel() for weight in model.parameters()) == expected == 1_177_098
    # What is not learnt: the stem, and the scales of six normalisations.
    held = sum(weight.numel() for weight in model.parameters() if not weight.requires_grad)
    assert held == 48 * 48 + 2 * (64 + 128 + 256)


def test_the_width_is_that_of_the_first_block() -> None:
    model = nets.build("quick(width=24)", 10, (3, 32, 32))
    assert model.text == "quick(24)"
    widths = [model.get_parameter(f"block{number}.conv.weight").shape[0] for number in (1, 2, 3)]
    assert widths == [24, 48, 96]
    assert nets.build("quick(64)", 10, (3, 32, 32)).text == "quick"


@pytest.mark.parametrize(
    ("net", "side", "widths"),
    [("quick(16,middle=64)", 32, [16, 64, 64]), ("quick(16,middle=20)", 224, [8, 16, 20, 64])],
)
def test_the_middle_block_has_the_channels_that_it_is_given(net: str, side: int, widths: list[int]) -> None:
    model = nets.build(net, 10, (3, side, side))
    assert model.text == net.replace(",", ", ")
    found = [module.conv.out_channels for module in model if isinstance(module, Block)]
    assert found == widths


@pytest.mark.parametrize(
    ("height", "width"),
    [(8, 8), (9, 9), (28, 28), (32, 32), (64, 64), (97, 97), (224, 224), (8, 50), (33, 20), (300, 70)],
)
def test_takes_images_of_many_sizes(height: int, width: int) -> None:
    model = nets.build("quick(8)", 7, (3, height, width), seed=0)
    logits = model(images(2, 3, height, width))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    learnt = [weight for weight in model.parameters() if weight.requires_grad]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in learnt)
    nets.check(model, (3, height, width), 7)


def test_the_stem_brings_images_down_as_far_as_its_patches_stay_small() -> None:
    for side in range(8, 1000):
        stride = stem_stride(side)
        assert stride <= LARGEST_STRIDE
        assert stride == LARGEST_STRIDE or -(-side // stride) <= LARGEST_MAP
        assert stride == 1 or -(-side // (stride // 2)) > LARGEST_MAP
    for side, stride in ((8, 1), (24, 1), (28, 2), (32, 2), (48, 2), (64, 4), (224, 4)):
        conv = nets.build("quick(2)", 2, (3, side, 2 * side)).get_submodule("stem.conv")
        assert isinstance(conv, nn.Conv2d)
        assert (conv.stride[0], conv.kernel_size[0]) == (stride, 2 * stride)
    conv = nets.build("quick(2, stride=3)", 2, (3, 32, 32)).get_submodule("stem.conv")
    assert isinstance(conv, nn.Conv2d)
    assert (conv.stride, conv.kernel_size) == ((3, 3), (6, 6))


@pytest.mark.parametrize(
    ("side", "widths", "last"),
    # Worked out by hand: the stem gives ⌊(side − 2·stride)/stride⌋ + 1, and each block ⌊half⌋ of that, down to 3.
    [(32, [32, 64, 128], 3), (160, [32, 64, 128], 4), (224, [16, 32, 64, 128], 3), (512, [8, 16, 32, 64, 128], 3)],
)
def test_large_images_get_more_blocks_of_fewer_channels_in_front(side: int, widths: list[int], last: int) -> None:
    model = nets.build("quick(32)", 2, (3, side, side), seed=0).eval()
    blocks = [module for module in model if isinstance(module, Block)]
    assert [block.conv.out_channels for block in blocks] == widths
    y_nchw = model[: 1 + len(blocks)](images(1, 3, side, side))
    assert tuple(y_nchw.shape[1:]) == (widths[-1], last, last)


def test_a_patch_of_few_numbers_has_as_many_directions() -> None:
    for image, channels in (((1, 8, 8), 8), ((3, 8, 8), 24), ((1, 28, 28), 32), ((3, 32, 32), 48)):
        assert nets.build("quick", 2, image).get_parameter("stem.conv.weight").shape[0] == channels


def test_a_narrow_network_looks_in_fewer_directions() -> None:
    for width, channels in ((2, 32), (32, 32), (40, 40), (48, 48), (128, 48)):
        stem = nets.build(f"quick({width})", 2, (3, 32, 32)).get_parameter("stem.conv.weight")
        assert stem.shape[0] == channels


def test_small_images_are_refused() -> None:
    with pytest.raises(nets.ShapeError) as caught:
        nets.build("quick", 10, (1, 7, 28))
    assert str(caught.value) == "quick takes images from 8×8, not 7×28: make them larger, say --size 16"
    with pytest.raises(nets.ShapeError) as caught:
        nets.build("quick(stride=16)", 10, (1, 28, 28))
    assert str(caught.value) == (
        "quick(stride=16) looks at patches of 32×32, which images of 28×28 are too small for: write stride=2 or leave "
        "it away"
    )


def test_runs_on_other_sizes_than_it_was_built_for() -> None:
    model = nets.build("quick(8)", 5, (3, 32, 32), seed=0).eval()
    for height, width in ((20, 20), (40, 24), (96, 96)):
        assert model(images(1, 3, height, width)).shape == (1, 5)


def test_layouts_and_precisions_agree() -> None:
    model = whitened()
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
    model = whitened().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cpu", torch.bfloat16):
        loss = nn.functional.cross_entropy(model(images(4, 3, 32, 32)), torch.tensor([0, 1, 2, 3]))
    loss.backward()  # type: ignore[no-untyped-call]
    for weight in model.parameters():
        assert (weight.grad is not None) == weight.requires_grad
        assert weight.grad is None or weight.grad.isfinite().all()


def test_convolutions_begin_as_the_identity_as_far_as_their_filters_reach() -> None:
    model = nets.build("quick(64)", 10, (3, 32, 32), seed=0)
    x_nchw = images(2, 48, 15, 15)
    # 48 channels into 64: the first 48 filters give their own channel, the others something else.
    y_nchw = model.get_submodule("block1.conv")(x_nchw)
    torch.testing.assert_close(y_nchw[:, :48], x_nchw)
    assert y_nchw[:, 48:].std() > 0.1
    x_nchw = images(2, 64, 7, 7)
    torch.testing.assert_close(model.get_submodule("block1.residual.conv")(x_nchw), x_nchw)
    narrow = nets.build("quick(16)", 10, (3, 32, 32), seed=0).get_submodule("block1.conv")
    x_nchw = images(2, 32, 15, 15)
    torch.testing.assert_close(narrow(x_nchw), x_nchw[:, :16])


def test_before_it_sees_images_the_stem_looks_in_random_directions_at_right_angles() -> None:
    weight_od = nets.build("quick", 10, (3, 32, 32), seed=0).get_parameter("stem.conv.weight").flatten(1)
    torch.testing.assert_close(weight_od[:24] @ weight_od[:24].T, torch.eye(24), rtol=0, atol=1e-5)
    torch.testing.assert_close(weight_od[24:], -weight_od[:24])


def test_the_stem_whitens_the_images_it_has_looked_at() -> None:
    """What its first half of filters gives is uncorrelated and has variance 1; the other half is the opposite."""
    generator = torch.Generator().manual_seed(1)
    # Images whose neighbouring pixels and whose channels are alike, as photographs' are.
    x_nchw = torch.nn.functional.avg_pool2d(torch.randn(400, 3, 38, 38, generator=generator), 7, 1)
    x_nchw = (x_nchw + 0.5 * x_nchw.mean(1, keepdim=True)) / x_nchw.std()
    model = nets.build("quick", 10, (3, 32, 32), seed=0)
    model.look_at(x_nchw)
    y_nchw = model.get_submodule("stem.conv")(x_nchw).detach()
    torch.testing.assert_close(y_nchw[:, 24:], -y_nchw[:, :24])
    y_dp = y_nchw[:, :24].transpose(0, 1).flatten(1).double()
    correlation_dd = torch.corrcoef(y_dp)
    assert (correlation_dd - torch.eye(24)).abs().max() < 0.05
    # The first direction differs most, so the floor takes nothing from it; the last are hardly more than the floor.
    variance_d = y_dp.var(1)
    assert 0.95 < variance_d[0] < 1.05
    assert (variance_d < 1.05).all()


def test_looking_at_images_draws_nothing_and_says_the_same_each_time() -> None:
    one, two = whitened(), whitened()
    before = torch.random.get_rng_state()
    two.look_at(images(64, 3, 32, 32))
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name])


def test_features_reach_the_head_scaled() -> None:
    model = whitened().eval()
    x_nchw = images(3, 3, 32, 32)
    parts = dict(model.named_children())
    features_nd = x_nchw
    for name in ("stem", "block1", "block2", "block3"):
        features_nd = parts[name](features_nd)
    features_nd = features_nd.amax((2, 3))
    head = parts["head"]
    assert isinstance(head, nn.Linear)
    torch.testing.assert_close(model(x_nchw), features_nd @ head.weight.T * SCALE + head.bias)


def test_the_residual_branch_is_added() -> None:
    """With a branch that gives only zeros, a block is its first half; the branch's own numbers come on top."""
    block = nets.build("quick(16)", 2, (3, 16, 16), seed=0).get_submodule("block1").eval()
    x_nchw = images(2, 24, 16, 16)
    half = torch.relu(block.get_submodule("norm")(block.get_submodule("pool")(block.get_submodule("conv")(x_nchw))))
    torch.testing.assert_close(block(x_nchw), half + block.get_submodule("residual")(half))
    nn.init.zeros_(block.get_parameter("residual.norm.weight"))
    torch.testing.assert_close(block(x_nchw), half)


def test_names() -> None:
    model = nets.build("quick", 10, (3, 32, 32))
    assert [name for name, _ in model.named_children()] == [
        "stem", "block1", "block2", "block3", "pool", "flatten", "scale", "head",
    ]  # fmt: skip
    assert set(dict(model.named_parameters())) >= {"stem.conv.weight", "block2.residual.norm.bias", "head.weight"}


def test_exports() -> None:
    model = whitened("quick(8)", (1, 8, 8)).eval()
    x_nchw = images(2, 1, 8, 8)
    torch.testing.assert_close(torch.export.export(model, (x_nchw,)).module()(x_nchw), model(x_nchw))

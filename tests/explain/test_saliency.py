"""Saliency maps and Grad-CAM against torch's autograd and interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.explain.building import Builder
from torch import nn

from pellucid.errors import UsageError
from pellucid.explain.record import record
from pellucid.explain.saliency import cam_layer, enlarged, grad_cam, saliency
from pellucid.explain.tape import Tape


class Net(nn.Module):
    """A small network with a shortcut; `features` are its last maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 4)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.conv2(y) + y)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.fc(self.features(x).mean((2, 3))))


@pytest.fixture(scope="module")
def pass_() -> tuple[Net, torch.Tensor, Tape]:
    torch.manual_seed(1)
    net = Net().eval()
    assert net.bn1.running_var is not None
    with torch.no_grad():
        net.bn1.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 13, 10)
    return net, x, record(net, x, [0, 1])


@pytest.mark.parametrize("label", [0, 3, None])
def test_saliency_is_the_largest_slope_of_the_logit(pass_: tuple[Net, torch.Tensor, Tape], label: int | None) -> None:
    net, x, tape = pass_
    leaf = x.clone().requires_grad_()
    logits = net(leaf)
    chosen = int(logits[1].argmax()) if label is None else label
    (slope,) = torch.autograd.grad(logits[1, chosen], leaf)
    found = saliency(tape, label, image=1)
    np.testing.assert_allclose(found, slope[1].abs().amax(0).numpy(), rtol=1e-4, atol=1e-7)
    weighted = saliency(tape, label, image=1, times_input=True)
    np.testing.assert_allclose(weighted, (slope * x)[1].abs().amax(0).numpy(), rtol=1e-4, atol=1e-7)


def test_saliency_of_the_loss_is_what_was_recorded(pass_: tuple[Net, torch.Tensor, Tape]) -> None:
    net, x, tape = pass_
    leaf = x.clone().requires_grad_()
    nn.functional.cross_entropy(net(leaf), torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    np.testing.assert_allclose(saliency(tape, of="loss"), leaf.grad[0].abs().amax(0).numpy(), rtol=1e-6)


@pytest.mark.parametrize("image", [0, 1])
def test_grad_cam_as_published(pass_: tuple[Net, torch.Tensor, Tape], image: int) -> None:
    net, x, tape = pass_
    for label in range(4):
        maps = net.features(x)
        logit = net.fc(maps.mean((2, 3)))[image, label]
        (slope,) = torch.autograd.grad(logit, maps)
        heat = torch.relu((slope[image].mean((1, 2))[:, None, None] * maps[image]).sum(0))
        wanted = nn.functional.interpolate(heat[None, None], (13, 10), mode="bilinear", align_corners=False)[0, 0]
        found = grad_cam(tape, label, image=image)
        np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_the_layer_is_the_last_with_places(pass_: tuple[Net, torch.Tensor, Tape]) -> None:
    node = cam_layer(pass_[2])
    assert node.op == "relu"
    assert node.shape == (2, 6, 7, 5)


def test_the_layer_among_gates_heads_and_moved_axes() -> None:
    build = Builder(1)
    x = build.conv("conv1", build.input(1, 2, 8, 8), 4, 3)
    x = build.op("swap", "permute", x, axes=[0, 2, 3, 1])
    x = build.op("gelu", "gelu", build.linear("mlp", x, 4))
    x = build.op("back", "permute", x, axes=[0, 3, 1, 2])
    x = build.op("add", "add", x, "conv1")
    gate = build.op("gate", "sigmoid", build.conv("squeeze", build.op("gap", "global_average_pool", x), 4, 1))
    aside = build.conv("aside", x, 2, 3)
    x = build.op("flat", "flatten", build.op("gap2", "global_average_pool", build.op("scaled", "multiply", x, gate)))
    tape = build.tape(build.linear("fc", x, 3))
    assert aside in tape.values
    assert cam_layer(tape).name == "scaled"
    heat = grad_cam(tape, 2)
    assert heat.shape == (8, 8)
    assert (heat >= 0).all()


@pytest.mark.parametrize(("size", "wanted"), [((3, 4), (9, 7)), ((1, 2), (5, 6)), ((7, 7), (7, 7)), ((8, 6), (3, 4))])
def test_enlarging_is_bilinear(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    heat = np.random.default_rng(0).normal(size=size)
    expected = nn.functional.interpolate(torch.from_numpy(heat)[None, None], wanted, mode="bilinear")[0, 0]
    np.testing.assert_allclose(enlarged(heat, *wanted), expected.numpy(), atol=1e-12)


def test_refusals(pass_: tuple[Net, torch.Tensor, Tape]) -> None:
    tape = pass_[2]
    with pytest.raises(UsageError, match="image is 2, but the tape has 2: name one of 0 to 1"):
        saliency(tape, image=2)
    with pytest.raises(UsageError, match="label is 4, but the network has 4 classes, 0 to 3"):
        grad_cam(tape, 4)
    with pytest.raises(UsageError, match="of is 'class', but"):
        saliency(tape, of="class")
    build = Builder(2)
    x = build.linear("fc", build.op("flat", "flatten", build.input(1, 1, 3, 3)), 2)
    flat = build.tape(x)
    assert saliency(flat, 1).shape == (3, 3)
    with pytest.raises(UsageError, match="no value on the way to fc is feature maps"):
        grad_cam(flat)
    with pytest.raises(UsageError, match="no gradient of a loss"):
        saliency(flat, of="loss")
    rows = Builder(3)
    with pytest.raises(UsageError, match=r"inputs are input \(1, 2\), but a map of pixels needs images"):
        saliency(rows.tape(rows.linear("fc", rows.input(1, 2), 2)))
    maps = Builder(4)
    with pytest.raises(UsageError, match=r"'conv' has shape \(1, 2, 2, 2\), but a class needs logits"):
        grad_cam(maps.tape(maps.conv("conv", maps.input(1, 1, 4, 4), 2)))

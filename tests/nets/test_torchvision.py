"""torchvision's networks as oracle: their weights load by name, and the same images get the same logits."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import nn

from pellucid import nets


def theirs(torchvision: ModuleType, name: str, **settings: object) -> nn.Module:
    """Their network, randomly initialised; statistics of the normalisations not left at 0 and 1."""
    model: nn.Module = getattr(torchvision.models, name.replace("-", "_"))(weights=None, **settings).eval()
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.1, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model


def images(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def compare(torchvision: ModuleType, name: str, **settings: object) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        oracle = theirs(torchvision, name, num_classes=7, **settings)
    with torch.device("meta"):
        ours = nets.build(name, 7, (3, 48, 40)).eval()
    # Taken over, not copied, which the meta device would refuse.
    ours.load_state_dict(oracle.state_dict(), strict=True, assign=True)
    x_nchw = images(48, 40)
    with torch.no_grad():
        logits = ours(x_nchw)
        assert torch.equal(logits, oracle(x_nchw))
        assert logits.std() > 1e-4


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_resnets(torchvision: ModuleType, name: str) -> None:
    compare(torchvision, name)


@pytest.mark.parametrize("name", [f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "-bn")])
def test_vggs(torchvision: ModuleType, name: str) -> None:
    compare(torchvision, name)


@pytest.mark.parametrize("transformed", [False, True])
def test_googlenet_and_its_auxiliary_heads(torchvision: ModuleType, transformed: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        oracle = theirs(
            torchvision, "googlenet", num_classes=7, aux_logits=True, init_weights=False, transform_input=transformed
        )
    ours = nets.build(f"googlenet(transform-input={str(transformed).lower()})", 7, (3, 64, 48)).eval()
    ours.load_state_dict(oracle.state_dict(), strict=True)
    x_nchw = images(64, 48)
    with torch.no_grad():
        assert torch.equal(ours(x_nchw), oracle(x_nchw))
        # Their auxiliary logits come in training only: batch statistics, and dropout switched off on both sides.
        for model in (ours, oracle):
            model.train()
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
        logits, (aux1, aux2) = ours.forward_with_auxiliary(x_nchw)
        expected = oracle(x_nchw)
    torch.testing.assert_close(logits, expected.logits)
    torch.testing.assert_close(aux1, expected.aux_logits1)
    torch.testing.assert_close(aux2, expected.aux_logits2)


def test_first_weights_are_spread_as_torchvisions(torchvision: ModuleType) -> None:
    oracle = torchvision.models.resnet18(weights=None)
    ours = nets.build("resnet18", 1000, (3, 32, 32), seed=0)
    for (name, weight), (other, theirs_) in zip(ours.named_parameters(), oracle.named_parameters(), strict=True):
        assert name == other
        assert weight.std().item() == pytest.approx(theirs_.std().item(), rel=0.05, abs=1e-3)

"""GoogLeNet's branches and heads; the input transformation against its definition."""

from __future__ import annotations

import torch
from torch import nn

from pellucid import nets
from pellucid.nets.googlenet import DEVIATION, MEAN, TABLE, TransformInput


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_transformation_is_the_other_normalisation() -> None:
    """Images x in [0, 1]: normalised by ImageNet's figures and transformed, they are (x − 0.5)/0.5."""
    x_nchw = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mean, deviation = (torch.tensor(figures)[:, None, None] for figures in (MEAN, DEVIATION))
    torch.testing.assert_close(TransformInput()((x_nchw - mean) / deviation), (x_nchw - 0.5) / 0.5)


def test_the_papers_branches_see_five_rows() -> None:
    for net, kernel in (("googlenet", 3), ("googlenet-paper", 5)):
        with torch.device("meta"):
            model = nets.build(net, 10, (3, 64, 64))
        large = model.get_submodule("inception3a.branch3.1.conv")
        assert isinstance(large, nn.Conv2d)
        assert large.kernel_size == (kernel, kernel)
        norms = sum(isinstance(part, nn.BatchNorm2d) for part in model.modules())
        biases = sum(isinstance(part, nn.Conv2d) and part.bias is not None for part in model.modules())
        responses = sum(isinstance(part, nn.LocalResponseNorm) for part in model.modules())
        convolutions = 3 + 6 * len(TABLE) + 2
        assert (norms, biases, responses) == ((convolutions, 0, 0) if kernel == 3 else (0, convolutions, 2))


def test_the_auxiliary_heads_are_asked_only_by_name() -> None:
    model = nets.build("googlenet", 7, (3, 32, 32), seed=0)
    asked = []
    for head in ("aux1", "aux2"):
        model.get_submodule(head).register_forward_hook(lambda *_: asked.append(1))
    x_nchw = noise(2, 3, 32, 32)
    assert isinstance(model.train()(x_nchw), torch.Tensor)
    assert not asked
    model.eval()
    logits, auxiliary = model.forward_with_auxiliary(x_nchw)
    assert len(asked) == 2
    assert [tuple(more.shape) for more in auxiliary] == [(2, 7), (2, 7)]
    assert torch.equal(logits, model(x_nchw))
    assert model.auxiliary_loss_weight == 0.3
    without = nets.build("googlenet(aux=false)", 7, (3, 32, 32), seed=0).eval()
    assert without.forward_with_auxiliary(x_nchw)[1] == []
    nets.check(model, (3, 32, 32), 7)


def test_other_networks_have_none() -> None:
    model = nets.build("resnet20", 7, (3, 32, 32), seed=0).eval()
    x_nchw = noise(2, 3, 32, 32)
    logits, auxiliary = model.forward_with_auxiliary(x_nchw)
    assert torch.equal(logits, model(x_nchw))
    assert (auxiliary, model.auxiliary_loss_weight) == ([], 0.0)


def test_a_slice_gives_features() -> None:
    model = nets.build("googlenet", 7, (3, 64, 64), seed=0).eval()
    names = [name for name, _ in model.named_children()]
    features = model[: names.index("inception4a") + 1]
    assert features(noise(1, 3, 64, 64)).shape == (1, 512, 4, 4)

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pellucid import nets
from pellucid.nets.layers import Dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.73])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_share_p_is_dropped_and_the_rest_keeps_the_expectation(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(200_003, dtype=dtype)
    y = Dropout(p)(x).double()
    dropped = (y == 0).double().mean().item()
    # Five standard deviations of a binomial share.
    assert abs(dropped - p) < 5 * math.sqrt(p * (1 - p) / len(x))
    kept = y[y != 0]
    assert torch.all(kept == kept[0])
    assert kept[0].item() == pytest.approx(1 / (1 - p), rel=2**-8 if dtype == torch.bfloat16 else 2**-14)


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(1)
    for p in (0.5, 0.1):
        gone = (Dropout(p)(torch.ones(400_000)) == 0).double()
        for apart in range(1, 10):
            assert abs(torch.corrcoef(torch.stack([gone[:-apart], gone[apart:]]))[0, 1].item()) < 0.01


def test_the_gradient_passes_where_the_number_did() -> None:
    torch.manual_seed(2)
    x = torch.randn(4, 3, 5, 7, requires_grad=True)
    y = Dropout(0.5)(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(slope, (y != 0).float() * 2)


def test_the_mask_follows_from_the_seed_and_differs_from_call_to_call() -> None:
    dropout, x = Dropout(0.5), torch.ones(1000)
    torch.manual_seed(3)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x))
    assert not torch.equal(first, second)


def test_the_layout_in_memory_stays() -> None:
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert Dropout(0.5)(x).is_contiguous(memory_format=torch.channels_last)
    assert Dropout(0.5)(x[:, :2, ::2]).shape == (2, 2, 2, 5)


def test_evaluation_and_the_ends_are_torchs() -> None:
    x = torch.randn(50)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert not Dropout(1.0)(x).any()


def test_an_exported_graph_has_one_dropout() -> None:
    net = nets.parse("INPUT(1,8,8) -> FC(6) -> DROPOUT(0.5) -> FC(2)", seed=0).train()
    graph = torch.export.export(net, (torch.randn(2, 1, 8, 8),)).graph_module.graph
    names = [str(node.target) for node in graph.nodes]
    assert names.count("aten.dropout.default") == 1
    assert not any("random" in name for name in names)
    assert isinstance(net.dropout1, nn.Dropout)

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from pellucid import nets
from pellucid.errors import UsageError
from pellucid.training.finetune import depth_groups, freeze, frozen_modules, units


def quick() -> nn.Module:
    return nets.build("quick", 3, (1, 8, 8), seed=0)


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, *, hold: bool = True, steps: int = 3) -> None:
    """Train as a loop does: training mode, then what is frozen back to evaluation."""
    generator = torch.Generator().manual_seed(0)
    model.train()
    for module in frozen_modules(model) if hold else []:
        module.eval()
    for _ in range(steps):
        x_nchw = torch.randn(8, 1, 8, 8, generator=generator)
        loss = functional.cross_entropy(model(x_nchw), torch.arange(8) % 3)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def moved(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(model.state_dict())


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("vgg16-bn", 16, ["features.0", "features.1"], ["classifier.6"]),
        ("resnet18", 10, ["conv1", "bn1"], ["fc"]),
        ("resnet50(d=true)", 20, ["conv1.0", "conv1.1"], ["fc"]),
        ("googlenet", 13, ["conv1"], ["fc", "aux1", "aux2"]),
        ("quick", 5, ["stem.conv"], ["head"]),
        ("lenet5", 5, ["conv1"], ["fc2"]),
        ("lstm", 2, ["lstm"], ["fc"]),
    ],
)
def test_depth_is_counted_in_layers_and_blocks(name: str, count: int, first: list[str], last: list[str]) -> None:
    with torch.device("meta"):
        model = nets.build(name, 3, (3, 32, 32))
    found = units(model)
    assert len(found) == count
    assert (found[0].names, found[-1].names) == (first, last)
    each = [id(parameter) for unit in found for parameter in unit.parameters]
    assert sorted(each) == sorted(id(parameter) for parameter in model.parameters())


def test_a_network_of_ones_own_is_counted_too() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, affine=False), nn.ReLU())
            self.block = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.LayerNorm(2)})
            self.top = nn.Linear(2, 3)

    model = Own()
    assert [unit.names for unit in units(model)] == [
        [""],
        ["body.0", "body.1"],
        ["block.a", "block.b"],
        ["top"],
    ]
    assert freeze(model, 2) == ["scale", "body.0.weight", "body.0.bias"]
    # It has no scale of its own, and goes by the layer before it.
    assert frozen_modules(model) == [model.body[1]]
    assert [unit.names for unit in units(nn.Linear(2, 2))] == [[""]]


def test_freezing_all_but_the_head_leaves_everything_else_to_the_bit() -> None:
    model = quick()
    frozen = freeze(model, "head")
    assert set(frozen) == {name for name, _ in model.named_parameters() if not name.startswith("head.")}
    before = state(model)
    take_steps(model, torch.optim.SGD(trainable(model), 0.1, momentum=0.9, weight_decay=0.1))
    assert moved(model, before) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("number", [1, 3])
def test_freezing_the_first_units_leaves_them_and_their_statistics_to_the_bit(number: int) -> None:
    model = quick()
    still = ("stem.", "block1.", "block2.", "block3.")[:number]
    scales = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    frozen = freeze(model, str(number))
    assert all(name.startswith(still) for name in frozen)
    before = state(model)
    take_steps(model, torch.optim.Adam(trainable(model), 0.01))
    after = moved(model, before)
    # Everything above moves, its statistics included, but for the scales that `quick` always holds at 1.
    assert after == {name for name in before if not name.startswith((*still, *scales))}


def test_statistics_would_move_if_the_loop_did_not_hold_them() -> None:
    model = quick()
    freeze(model, "head")
    before = state(model)
    take_steps(model, torch.optim.SGD(trainable(model), 0.1), hold=False)
    assert "block1.norm.running_mean" in moved(model, before)


def test_only_frozen_normalisations_are_held() -> None:
    model = quick()
    assert frozen_modules(model) == []
    freeze(model, 2)
    held = frozen_modules(model)
    expected = [model.get_submodule(name) for name in ("block1.norm", "block1.residual.norm")]
    assert held == expected
    model.train()
    for module in held:
        module.eval()
    assert model.get_submodule("block2.norm").training


def test_the_auxiliary_heads_stay_trainable_above_frozen_features() -> None:
    with torch.device("meta"):
        model = nets.build("googlenet", 3, (3, 32, 32))
    freeze(model, "head")
    kept = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert kept == {f"{top}.{part}" for top in ("fc", "aux1.fc2", "aux2.fc2") for part in ("weight", "bias")}


def test_freezing_nothing_is_allowed_and_freezing_everything_is_not() -> None:
    model = quick()
    assert freeze(model, 0) == []
    for number in (5, -1):
        with pytest.raises(UsageError, match=r"has 5 layers and blocks with weights, so at most 4"):
            freeze(model, number)
    with pytest.raises(UsageError, match="expected head, or how many layers"):
        freeze(model, "body")
    with pytest.raises(UsageError, match="no classifier to train"):
        freeze(nn.Conv2d(1, 2, 3), "head")


def test_rates_fall_by_the_factor_with_each_unit_down() -> None:
    model = quick()
    groups = depth_groups(model, 0.5)
    assert [group.multiplier for group in groups] == [1, 0.5, 0.25, 0.125]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tops = [{names[id(p)].partition(".")[0] for p in group.parameters} for group in groups]
    assert tops == [{"head"}, {"block3"}, {"block2"}, {"block1"}]
    assert sum(len(group.parameters) for group in groups) == len(trainable(model)) == 14


def test_frozen_units_count_for_the_distance() -> None:
    model = quick()
    freeze(model, 2)
    assert [group.multiplier for group in depth_groups(model, 0.1)] == pytest.approx([1, 0.1, 0.01])
    freeze(model, "head")
    assert [group.multiplier for group in depth_groups(model, 0.1)] == [1]


def test_each_step_is_the_gradient_times_its_own_rate() -> None:
    model = quick()
    groups = depth_groups(model, 0.3)
    optimizer = torch.optim.SGD([{"params": group.parameters, "lr": 0.1 * group.multiplier} for group in groups])
    before = [[parameter.detach().clone() for parameter in group.parameters] for group in groups]
    take_steps(model, optimizer, steps=1)
    for depth, (group, old) in enumerate(zip(groups, before, strict=True)):
        for parameter, was in zip(group.parameters, old, strict=True):
            assert parameter.grad is not None
            assert torch.equal(parameter.detach(), was.add(parameter.grad, alpha=-0.1 * 0.3**depth))


def test_a_shared_parameter_is_in_one_group_alone() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    groups = depth_groups(nn.Sequential(first, second), 0.5)
    assert [[tuple(p.shape) for p in group.parameters] for group in groups] == [[(3, 3), (3,)], [(3,)]]


@pytest.mark.parametrize("factor", [0, -0.5, 1.5, float("nan")])
def test_a_factor_that_makes_no_sense_is_refused(factor: float) -> None:
    with pytest.raises(UsageError, match=r"--lr-decay-by-depth .*: expected a number above 0 and up to 1"):
        depth_groups(quick(), factor)

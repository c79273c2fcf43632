"""Summaries of our networks and of anybody's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pellucid import nets
from pellucid.nets.summary import Row


@pytest.mark.parametrize(
    ("net", "image"),
    [
        ("lenet5", (1, 32, 32)),
        ("cifar-cnn", (3, 32, 32)),
        ("quick", (3, 40, 64)),
        ("INPUT -> CONV(4, stride=2, norm=batch) -> POOL(3, avg) -> FC(3)", (2, 20, 20)),
    ],
)
def test_totals_are_the_modules(net: str, image: tuple[int, int, int]) -> None:
    model = nets.build(net, 3, image)
    found = nets.summary(model, image)
    assert found.parameters == sum(row.parameters for row in found.rows) == sum(w.numel() for w in model.parameters())
    leaves = [name for name, part in model.named_modules() if not list(part.children())]
    assert [row.name for row in found.rows] == leaves
    assert found.rows[-1].output == (3,)


def test_rows_and_formula() -> None:
    rows = nets.summary(nets.build("lenet5", 10, (1, 32, 32)), (1, 32, 32)).rows
    assert rows[0] == Row("conv1", "Conv2d(1, 6, kernel_size=(5, 5))", (6, 28, 28), "⌊(32 − 5 + 2·0)/1⌋ + 1 = 28", 156)
    assert rows[2].formula == "⌊(28 − 2 + 2·0)/2⌋ + 1 = 14"
    assert (rows[1].formula, rows[1].parameters) == ("", 0)
    (row, *_) = nets.summary(nets.parse("INPUT(1,8,9) -> CONV(2, stride=2)"), (1, 8, 9)).rows
    assert row.formula == "H: ⌊(8 − 3 + 0 + 1)/2⌋ + 1 = 4; W: ⌊(9 − 3 + 2·1)/2⌋ + 1 = 5"
    assert row.output == (2, 4, 5)


def test_the_first_layer_as_a_fully_connected_one() -> None:
    said = nets.summary(nets.build("lenet5", 10, (1, 32, 32)), (1, 32, 32)).first_layer_as_fc
    assert said == (
        "A fully connected layer in place of conv1, from 1·32·32 = 1,024 numbers to 6·28·28 = 4,704, "
        "would have (1,024 + 1)·4,704 = 4,821,600 parameters instead of 156."
    )
    # The claim itself, where such a layer is small enough to make.
    model = nets.parse("INPUT(1,6,6) -> CONV(2, padding=valid)")
    cost = sum(weight.numel() for weight in nn.Linear(36, 32).parameters())
    assert f"= {cost:,} parameters instead of 20." in nets.summary(model, (1, 6, 6)).first_layer_as_fc
    bare = nets.summary(nets.parse("INPUT(1,6,6) -> CONV(2, padding=valid, bias=false)"), (1, 6, 6))
    assert "36·32 = 1,152 parameters instead of 18." in bare.first_layer_as_fc
    assert nets.summary(nets.parse("INPUT(1,6,6) -> FC(3)"), (1, 6, 6)).first_layer_as_fc == ""


def test_the_table() -> None:
    lines = str(nets.summary(nets.build("cifar-cnn", 10, (3, 32, 32)), (3, 32, 32))).split("\n")
    table = lines[: lines.index("")]
    assert len({len(line) for line in table}) == 1
    assert table[0].split() == ["name", "layer", "output", "size", "parameters"]
    assert table[2].startswith("conv1 ")
    assert table[2].endswith(" 896")
    assert lines[-2] == "1,250,858 parameters"
    assert lines[-1].startswith("A fully connected layer in place of conv1")


class Odd(nn.Module):
    """A parameter of its own, a layer called twice, one never called, two that share weights, and a functional sum."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.relu = nn.ReLU()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(7, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1) * self.scale
        x = x + self.relu(self.first(self.relu(x)))
        result: torch.Tensor = self.second(x)
        return result


def test_anybodys_module() -> None:
    model = Odd()
    found = nets.summary(model, (1, 2, 2))
    assert [(row.name, row.output, row.parameters) for row in found.rows] == [
        ("Odd", (4,), 4),
        ("relu", (4,), 0),
        ("first", (4,), 20),
        ("relu@2", (4,), 0),
        ("second", (4,), 4),
        ("unused", None, 56),
    ]
    assert found.parameters == sum(weight.numel() for weight in model.parameters()) == 84
    assert "—" in str(found)


def test_lazy_layers_are_sized_on_a_copy() -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    assert nets.summary(model, (1, 2, 2)).parameters == 15
    assert isinstance(model[1].weight, nn.UninitializedParameter)


def test_the_module_and_the_random_numbers_are_left_alone() -> None:
    model = nets.build("quick", 3, (1, 8, 8), seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    nets.summary(model, (1, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(part.training for part in model.modules())


def test_what_does_not_fit_is_explained() -> None:
    with pytest.raises(nets.ShapeError, match=r"^0: got 3 channels in 2×3×8×8, expects 1: write nn\.Conv2d\(3, 2, "):
        nets.summary(nn.Sequential(nn.Conv2d(1, 2, 3)), (3, 8, 8))

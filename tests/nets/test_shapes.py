"""Every misfit is explained: the layer, what came, what it expected, the formula, and a remedy that works."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from pellucid import nets
from pellucid.errors import UsageError


def refusal(model: nn.Module, image: tuple[int, ...] | torch.Tensor, classes: int | None = None) -> str:
    with pytest.raises(nets.ShapeError) as caught:
        nets.check(model, image, classes)
    assert caught.value.exit_code == 2
    return str(caught.value)


class Small(nn.Module):
    """Convolution, pool, and a linear layer, with the four ways in which people go from map to row."""

    def __init__(self, numbers: int, way: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(numbers, 10)
        self.numbers, self.way = numbers, way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.conv(x))
        if self.way == "view":
            x = x.view(-1, self.numbers)
        elif self.way == "flatten":
            x = torch.flatten(x, 1)
        elif self.way == "flatten all":
            x = torch.flatten(x)
        result: torch.Tensor = self.fc(x)
        return result


@pytest.mark.parametrize("way", ["view", "flatten"])
def test_what_fits_passes(way: str) -> None:
    nets.check(Small(576, way), (1, 14, 14), 10)
    nets.check(Small(576, way), (1, 14, 14))
    nets.check(Small(576, way), torch.zeros(5, 1, 14, 14), 10)


def test_linear_features() -> None:
    message = refusal(Small(400, "flatten"), (1, 14, 14))
    assert message == "fc: got rows of 576 = 16·6·6, expects 400 = 16·5·5: write nn.Linear(576, 10)"
    with pytest.raises(nets.ShapeError) as caught:
        nets.check(Small(400, "flatten"), (1, 14, 14))
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "400x10" in str(caught.value.__cause__)
    bare = nn.Sequential(nn.Flatten(), nn.Linear(9, 3, bias=False))
    assert refusal(bare, (1, 4, 4)) == "1: got rows of 16, expects 9: write nn.Linear(16, 3, bias=False)"
    # The remedy holds.
    nets.check(nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False)), (1, 4, 4), 3)


def test_linear_on_a_map() -> None:
    assert refusal(Small(576, "none"), (1, 14, 14)) == (
        "fc: got maps of 16×6×6 where it expects rows of 576 = 16×6×6: "
        "the map was not flattened; write x = torch.flatten(x, 1) before it"
    )
    assert refusal(Small(400, "none"), (1, 14, 14)) == (
        "fc: got maps of 16×6×6 where it expects rows of 400: "
        "write x = torch.flatten(x, 1) before it, and nn.Linear(576, 10)"
    )


def test_ten_rows_of_49() -> None:
    """A batch axis that is missing shows up late, as rows that are too many and too short."""
    model = nn.Sequential(nn.Conv2d(1, 10, 3), nn.MaxPool2d(2), nn.Flatten(1), nn.Linear(490, 10))
    nets.check(model, (1, 16, 16), 10)
    assert refusal(model, torch.zeros(1, 16, 16)) == (
        "3: got 10 rows of 49 where it expects rows of 490 = 10×7×7: "
        "the batch axis seems to be missing; give N×C×H×W, for one image x.unsqueeze(0)"
    )
    nets.check(model, torch.zeros(1, 16, 16).unsqueeze(0), 10)


def test_views() -> None:
    assert refusal(Small(400, "view"), (1, 14, 14)) == (
        "the network itself (Small): a view to rows of 400 does not fit what pool gives, 576 = 16·6·6 an image: "
        "write torch.flatten(x, 1), and nn.Linear(576, 10) after it"
    )
    # A view that happens to divide goes through, and mixes the images of a batch.
    assert refusal(Small(288, "view"), (1, 14, 14), 10) == (
        "fc (Linear(in_features=288, out_features=10)) gives 4×10, but a batch of 2 must give one tensor of 2×10, "
        "a row of logits for each image: a view or reshape mixed the images up; write torch.flatten(x, 1), which keeps "
        "the batch axis"
    )


@pytest.mark.parametrize(
    ("model", "image", "said"),
    [
        (
            nn.Conv2d(1, 6, 5),
            (3, 8, 8),
            "got 3 channels in 2×3×8×8, expects 1: write nn.Conv2d(3, 6, kernel_size=(5, 5))",
        ),
        (
            nn.Conv2d(3, 6, 5, padding=2, bias=False),
            (1, 8, 8),
            "got 1 channel in 2×1×8×8, expects 3: "
            "write nn.Conv2d(1, 6, kernel_size=(5, 5), padding=(2, 2), bias=False)",
        ),
        (
            nn.Conv2d(3, 6, 5),
            torch.zeros(2, 8, 8, 3),
            "got 8 channels in 2×8×8×3, expects 3: the channels stand last; write x.permute(0, 3, 1, 2) before it",
        ),
        (nn.Conv2d(3, 6, 5), torch.zeros(8, 8, 3), "the channels stand last; write x.permute(2, 0, 1) before it"),
        (nn.Conv2d(1, 6, 5), torch.zeros(9, 8, 8), "the channel axis is missing; write x.unsqueeze(1) before it"),
        (nn.Conv2d(4, 6, 5, groups=2), (3, 8, 8), "expects 4: and groups=2 does not divide 3"),
        (
            nn.Sequential(nn.Flatten(), nn.Conv2d(1, 6, 5)),
            (1, 8, 8),
            "got 2×64, expects N×C×H×W: give it a batch of maps, not flattened ones",
        ),
        (nn.Sequential(nn.Flatten(), nn.MaxPool2d(2)), (1, 8, 8), "got 2×64, expects N×C×H×W"),
        (
            nn.Conv2d(1, 6, 5),
            (1, 9, 4),
            "a 5×5 kernel does not fit the 9×4 map that reaches it: ⌊(4 − 5 + 2·0)/1⌋ + 1 = 0: "
            "write kernel_size=4 or padding=2, pool less before it, or use larger images",
        ),
        (
            nn.MaxPool2d(3, stride=2),
            (1, 2, 2),
            "a 3×3 window does not fit the 2×2 map that reaches it: ⌊(2 − 3 + 2·0)/2⌋ + 1 = 0: write kernel_size=2",
        ),
        (nn.AvgPool2d(3), (1, 2, 2), "a 3×3 window does not fit the 2×2 map"),
        (nn.BatchNorm2d(9), (8, 4, 4), "got 8 channels in 2×8×4×4, expects 9: write nn.BatchNorm2d(8)"),
        (
            nn.BatchNorm1d(8),
            (8, 4, 4),
            "got an input of 4 axes, 2×8×4×4, and expects 2 or 3: write nn.BatchNorm2d(8)",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.BatchNorm2d(64)),
            (4, 4, 4),
            "got an input of 2 axes, 2×64, and expects 4: write nn.BatchNorm1d(64)",
        ),
    ],
)
def test_single_layers(model: nn.Module, image: tuple[int, ...] | torch.Tensor, said: str) -> None:
    message = refusal(nn.Sequential(model), image)
    assert re.match(r"0(\.1)?: ", message)
    assert said in message


def test_the_remedies_hold() -> None:
    """Where the message tells to write a module, that module takes what came."""
    shapes = [(1, 8, 8), (3, 8, 8), (4, 8, 8)]
    makers = [nn.Conv2d(2, 6, 5, stride=2), nn.Conv2d(2, 6, 3, dilation=(1, 2), bias=False), nn.BatchNorm2d(2)]
    for image in shapes:
        for module in makers:
            written = refusal(nn.Sequential(module), image).split("write ")[1]
            assert eval(written, {"nn": nn})(torch.zeros(2, *image)).shape[0] == 2


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            nn.Conv2d(3, 8, 3),
            "0 (Conv2d(3, 8, kernel_size=(3, 3))) gives 2×8×6×6, but a batch of 2 must give one tensor of 2×5",
        ),
        (nn.Conv2d(3, 8, 3), "end with nn.Flatten() and nn.Linear(288, 5)"),
        (nn.Flatten(0), "0 (Flatten(start_dim=0)) gives 384, but"),
        (nn.Flatten(0), "the batch axis was flattened away; write torch.flatten(x, 1), not torch.flatten(x)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 7)), "gives 2×7, but a batch of 2 must give one tensor of 2×5"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 7)), "write nn.Linear(192, 5)"),
        (nn.Flatten(), "0 (Flatten()) gives 2×192, but"),
        (nn.Flatten(), "end with nn.Linear(192, 5)"),
    ],
)
def test_outputs(model: nn.Module, said: str) -> None:
    assert said in refusal(nn.Sequential(model), (3, 8, 8), 5)


def test_an_output_that_is_no_tensor() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    message = refusal(Two(), (3, 8, 8), 5)
    assert message.startswith("the network gives a tuple: a batch of 2 must give one tensor of 2×5")
    assert message.endswith("return the logits alone")
    assert "2×classes" in refusal(Two(), (3, 8, 8))


def test_anything_else_names_the_layer_and_passes_on_what_torch_says() -> None:
    class Own(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ torch.zeros(5, 5)

    message = refusal(nn.Sequential(nn.ReLU(), Own()), (3, 8, 8))
    assert message.startswith("1 got an input of 2×3×8×8 and failed with RuntimeError: ")
    assert len(message) < 300

    # A layer whose sizes are right is not blamed for them.
    mixed = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 2).double())
    assert re.match(r"2 got an input of 2×4 and failed with RuntimeError: .*dtype", refusal(mixed, (1, 2, 2)))

    class Long(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("no\n " * 500)

    message = refusal(Long(), (3, 8, 8))
    assert message.startswith("the network itself (Long) got an input of 2×3×8×8 and failed with ValueError: no no no")
    assert message.endswith("…")
    assert len(message) < 300


def test_networks_of_ours_say_what_they_were_built_for() -> None:
    lenet5 = nets.build("lenet5", 10, (1, 32, 32))
    nets.check(lenet5, (1, 32, 32), 10)
    message = refusal(lenet5, (1, 28, 28))
    assert message.startswith(
        "conv3: a 5×5 kernel does not fit the 4×4 map that reaches it: ⌊(4 − 5 + 2·0)/1⌋ + 1 = 0; "
    )
    assert "or use images of at least 32×32 (--size 32)\n" in message
    built = "the network was built for images of 1×32×32; give it those, or build it for "
    assert refusal(lenet5, (1, 36, 36)) == f"fc1: got rows of 480 = 120·2·2, expects 120: {built}1×36×36"
    assert refusal(lenet5, (3, 32, 32)) == f"conv1: got 3 channels in 2×3×32×32, expects 1: {built}3×32×32"
    assert refusal(lenet5, (1, 32, 32), 5).endswith("build it with classes=5")
    quick = nets.build("quick", 10, (3, 224, 224))
    nets.check(quick, (3, 300, 200), 10)
    message = refusal(quick, (3, 8, 8))
    assert message.startswith("block1.pool: a 2×2 window does not fit the 1×1 map that reaches it: ")
    assert message.endswith("built for images of 3×224×224; give it those, or build it for 3×8×8")


def test_an_image_is_three_numbers() -> None:
    with pytest.raises(UsageError, match=r"image=\(28, 28\): expected \(channels, height, width\)"):
        nets.check(nn.Flatten(), (28, 28))


def test_the_model_is_left_alone() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(5, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    refusal(model, (3, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(part.training and not part._forward_hooks for part in model.modules())

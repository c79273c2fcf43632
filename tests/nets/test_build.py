"""Networks by name and by notation: published counts, shapes against torch, seeds, first weights; that they learn."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn

from pellucid import nets
from pellucid.errors import UsageError
from pellucid.nets.build import is_notation
from pellucid.nets.layer import ACTIVATIONS
from pellucid.nets.names import FAMILIES
from pellucid.nets.notation import read
from pellucid.nets.plan import plan
from pellucid.recipe import NETWORKS

GOLDEN = Path(__file__).parents[1] / "golden" / "conv_forward.json"


def count(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("net", "image", "parameters"),
    [
        ("lenet5", (1, 32, 32), 61_706),
        ("lenet5", (3, 32, 32), 61_706 + 2 * 6 * 25),
        ("cifar-cnn", (3, 32, 32), 1_250_858),
        # Two worked out by hand: (3·9 + 1)·32, (32·9 + 1)·32, 16·16·32·10 + 10; and a linear classifier.
        ("INPUT -> [CONV(32)]*2 -> POOL -> FC(10)", (3, 32, 32), 896 + 9_248 + 81_930),
        ("INPUT(1,28,28) -> FC(classes)", (1, 28, 28), 7_850),
    ],
)
def test_parameter_counts(net: str, image: tuple[int, int, int], parameters: int) -> None:
    model = nets.build(net, 10, image)
    assert count(model) == parameters
    assert model(torch.zeros(2, *image)).shape == (2, 10)


def test_lenet5_layer_by_layer() -> None:
    """The table of LeCun et al. (1998), section II.B, with full connections from S2 to C3."""
    rows = {row.name: row for row in nets.summary(nets.build("lenet5", 10, (1, 32, 32)), (1, 32, 32)).rows}
    table = {
        "conv1": ((6, 28, 28), 156),
        "pool1": ((6, 14, 14), 0),
        "conv2": ((16, 10, 10), 2_416),
        "pool2": ((16, 5, 5), 0),
        "conv3": ((120, 1, 1), 48_120),
        "fc1": ((84,), 10_164),
        "fc2": ((10,), 850),
    }
    assert {name: (rows[name].output, rows[name].parameters) for name in table} == table
    model = nets.build("lenet5", 10, (1, 32, 32))
    assert sum(isinstance(part, nn.Tanh) for part in model.modules()) == 4
    assert sum(isinstance(part, nn.AvgPool2d) for part in model.modules()) == 2
    assert isinstance(list(model.children())[-1], nn.Linear)


def test_lenet5_explains_other_sizes() -> None:
    with pytest.raises(nets.ShapeError, match=r"conv3: a 5×5 kernel does not fit the 4×4 map .*\(--size 32\)"):
        nets.build("lenet5", 10, (1, 28, 28))
    assert nets.build("lenet5", 10, (1, 36, 36))(torch.zeros(1, 1, 36, 36)).shape == (1, 10)


LAYER = st.one_of(
    st.builds(
        "CONV({}, kernel={}, stride={}, padding={}, dilation={}, activation={}, norm={}, groups={}, bias={})".format,
        st.sampled_from([3, 6]),
        st.integers(1, 5),
        st.integers(1, 3),
        st.sampled_from(["same", "valid", 0, 1, 2]),
        st.integers(1, 2),
        st.sampled_from([*ACTIVATIONS, "none"]),
        st.sampled_from(["batch", "none", "layer", "group"]),
        st.sampled_from([1, 3]),
        st.sampled_from(["true", "false"]),
    ),
    st.builds("POOL({}, {}, stride={})".format, st.integers(1, 3), st.sampled_from(["max", "avg"]), st.integers(1, 3)),
    st.builds(
        "{}, kernel={}, stride={}, padding={}, dilation={}, norm={}, bias={})".format,
        st.sampled_from(["DWCONV(2", "DWCONV(1", "SEPCONV(6"]),
        st.integers(1, 4),
        st.integers(1, 3),
        st.sampled_from(["same", "valid", 1]),
        st.integers(1, 2),
        st.sampled_from(["none", "group"]),
        st.sampled_from(["true", "false"]),
    ),
    st.builds(
        "TCONV({}, kernel={}, stride={}, padding={}, output-padding={}, groups={})".format,
        st.sampled_from([3, 6]),
        st.integers(1, 4),
        st.integers(2, 3),
        st.integers(0, 1),
        st.integers(0, 1),
        st.sampled_from([1, 3]),
    ),
    st.builds("SOFTPOOL({}, stride={})".format, st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from(["GROUPNORM", "GROUPNORM(3)", "LAYERNORM", "LRN", "LRN(3, k=2)", "SOFTPOOL?"]),
    st.sampled_from(["POOL", "POOL(3, padding=1)?", "BATCHNORM", "DROPOUT(0.2)", "[CONV(3) -> POOL?]*2"]),
)
TAIL = st.sampled_from(
    [
        "FC(5)",
        "SPP -> LAYERNORM -> FC(5)",
        "SPP(3, avg) -> FC(5)",
        "FC(4, activation=tanh) -> FC(5)",
        "GLOBALPOOL(max) -> FC(5)",
        "FLATTEN -> FC(classes)",
    ]
)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.lists(LAYER, min_size=1, max_size=4), TAIL, st.integers(5, 20), st.integers(5, 20))
def test_planned_shapes_are_torchs(layers: list[str], tail: str, height: int, width: int) -> None:
    text = f"INPUT(3,{height},{width}) -> {' -> '.join(layers)} -> {tail}"
    try:
        placed = plan(read(text), None, 5)
    except nets.ShapeError as error:
        assert "does not fit" in str(error) or "its padding takes away" in str(error)  # noqa: PT017  the other branch is the common one
        return
    model = nets.parse(text, classes=5, seed=0).eval()
    x = torch.zeros(2, 3, height, width)
    shapes = {}
    for name, part in model.named_children():
        x = part(x)
        if not name.endswith("_depthwise"):
            shapes[name.split("_")[0]] = tuple(x.shape[1:])
    assert shapes == {item.name: item.after for item in placed}
    parts = [part for item in placed for part in item.layer.parts(item.before)]
    assert [part.parameters for part in parts] == [count(part) for part in model.children()]
    # What the plan writes reads back as the same network.
    again = f"INPUT(3,{height},{width}) -> " + " -> ".join(item.layer.text for item in placed)
    assert [(item.name, item.layer) for item in plan(read(again), None, 5)] == [(p.name, p.layer) for p in placed]


def test_the_golden_convolution() -> None:
    golden = {key: np.array(value) for key, value in json.loads(GOLDEN.read_text()).items()}
    model = nets.parse("INPUT(3,5,5) -> CONV(2, kernel=3, stride=2, padding=1)").double()
    conv = model.get_submodule("conv1")
    with torch.no_grad():
        conv.get_parameter("weight").copy_(torch.from_numpy(golden["w_ockl"]))
        conv.get_parameter("bias").copy_(torch.from_numpy(golden["b_o"]))
        x_nchw = torch.from_numpy(golden["x_chw"])[None].double()
        assert torch.equal(conv(x_nchw)[0], torch.from_numpy(golden["y_oij"]).double())
        assert torch.equal(model(x_nchw)[0], torch.from_numpy(golden["y_oij"]).double().clamp(min=0))


def test_module_names_are_addresses() -> None:
    model = nets.parse("INPUT(3,8,8) -> CONV(4, norm=batch, activation=leaky-relu) -> POOL -> FC(6) -> FC(2)")
    assert [name for name, _ in model.named_children()] == [
        "conv1", "conv1_norm", "conv1_leaky_relu", "pool1", "flatten", "fc1", "fc1_relu", "fc2",
    ]  # fmt: skip
    assert "conv1.weight" in model.state_dict()
    assert (model.text[:5], model.image, model.classes) == ("INPUT", (3, 8, 8), None)


def test_a_slice_is_a_network_too() -> None:
    features = nets.build("lenet5", 10, (1, 32, 32))[:3]
    assert isinstance(features, nn.Sequential)
    assert features(torch.zeros(1, 1, 36, 36)).shape == (1, 6, 16, 16)
    with pytest.raises(nets.ShapeError, match=r"^conv1: got 3 channels in 2×3×8×8, expects 1: write nn\.Conv2d"):
        nets.check(features, (3, 8, 8))


#: One of each family; the others are the same code with other numbers, and take long to draw.
ONE_EACH = (
    "quick",
    "lenet5",
    "cifar-cnn",
    "mlp",
    "googlenet",
    "googlenet-paper",
    "resnet18",
    "resnet20",
    "rnn",
    "lstm",
)


@pytest.mark.parametrize("net", [*ONE_EACH, "INPUT -> CONV(4, stride=2) -> FC(3)"])
def test_a_seed_decides_the_weights_and_nothing_else(net: str) -> None:
    first, same, other = (nets.build(net, 3, (1, 32, 32), seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    nets.build(net, 3, (1, 32, 32), seed=5)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_seed_leaves_accelerators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def seeded(seed: int) -> None:
        pytest.fail(f"the generators of the accelerators were seeded with {seed}")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded)
    nets.build("quick", 3, (1, 8, 8), seed=5)


def test_without_a_seed_torchs_own_numbers_decide() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        weights.append(nets.parse("INPUT(1,4,4) -> FC(3)").get_parameter("fc1.weight"))
    assert torch.equal(*weights)
    assert not torch.equal(weights[0], nets.parse("INPUT(1,4,4) -> FC(3)").get_parameter("fc1.weight"))


def test_first_weights_are_hes_and_glorots() -> None:
    model = nets.parse("INPUT(64,8,8) -> CONV(64) -> CONV(64, activation=tanh) -> FC(256) -> FC(10)", seed=0)
    for name, variance in (
        ("conv1", 2 / (64 * 9)),
        ("conv2", 2 / (64 * 9 + 64 * 9)),
        ("fc1", 2 / 4096),
        ("fc2", 1 / (3 * 256)),
    ):
        weight, bias = (model.get_parameter(f"{name}.{kind}") for kind in ("weight", "bias"))
        assert weight.var().item() == pytest.approx(variance, rel=0.1)
        assert not bias.any()


@pytest.mark.parametrize("layer", ["CONV(96)", "SEPCONV(96)", "TCONV(96, kernel=4, padding=1)", "CONV(96, groups=4)"])
def test_first_weights_keep_the_spread(layer: str) -> None:
    """Before the ReLU the variance is twice the mean square that came, so that after it it is the same (He et al.)."""
    model = nets.parse(f"INPUT(64,16,16) -> {layer}", seed=0)
    x_nchw = torch.randn(8, 64, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y_nchw = model[:-1](x_nchw)[:, :, 2:-2, 2:-2]
    assert y_nchw.var().item() == pytest.approx(2, rel=0.15)


def test_a_pyramid_takes_images_of_any_size() -> None:
    model = nets.parse("INPUT(3,32,32) -> CONV(8) -> POOL -> SPP(4, 2, 1) -> FC(5)", classes=5, seed=0)
    for side in (7, 32, 45):
        assert model(torch.zeros(2, 3, side, side + 3)).shape == (2, 5)
        nets.check(model[:], (3, side, side), 5)


def test_input_of() -> None:
    assert nets.input_of("quick") == nets.input_of("cifar-cnn") == nets.input_of("INPUT -> FC(3)") == (None, None, None)
    assert nets.input_of("lenet5") == (None, 32, 32)
    assert nets.input_of("INPUT(3,64,48) -> FC(3)") == (3, 64, 48)
    with pytest.raises(UsageError, match="did you mean 'lenet5'"):
        nets.input_of("lenet")


def test_names() -> None:
    assert nets.NAMES == NETWORKS == tuple(FAMILIES)
    for name in nets.NAMES:
        with torch.device("meta"):
            net = nets.build(name, 4, (3, 32, 32))
        assert isinstance(net, nets.Network)
        assert net.text == name or is_notation(net.text)
        assert not is_notation(name)
    with pytest.raises(UsageError) as caught:
        nets.build("lenet", 10, (1, 32, 32))
    assert str(caught.value) == (
        "'lenet' is no network Pellucid knows: did you mean 'lenet5'? "
        "Or write its layers: 'INPUT -> CONV(32) -> POOL -> FC(10)'"
    )


def test_refusals_of_build() -> None:
    with pytest.raises(UsageError, match="classes=0"):
        nets.build("quick", 0, (3, 32, 32))
    with pytest.raises(UsageError, match=r"image=\(3, 32\)"):
        nets.build("quick", 2, (3, 32))  # type: ignore[arg-type]
    with pytest.raises(nets.ShapeError, match=r"contradict each other: write INPUT\(1,28,28\)"):
        nets.build("INPUT(3,32,32) -> FC(2)", 2, (1, 28, 28))
    with pytest.raises(UsageError) as caught:
        nets.parse("INPUT(1,28,28) -> FC(100000) -> FC(100000) -> FC(10)")
    assert str(caught.value) == (
        "the network has 10,079,600,010 parameters, and 2,147,483,648 is the most: make fc2 smaller, which has "
        "10,000,100,000, or POOL before it"
    )


def digits(side: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Thirty-two of scikit-learn's handwritten digits, to mean 0 and variance 1."""
    pictures, labels = load_digits(return_X_y=True)
    x_nchw = torch.tensor(pictures[:32], dtype=torch.float32).reshape(32, 1, 8, 8)
    x_nchw = nn.functional.interpolate((x_nchw - x_nchw.mean()) / x_nchw.std(), size=(side, side))
    return x_nchw.expand(-1, channels, -1, -1), torch.tensor(labels[:32])


@pytest.mark.parametrize(
    ("net", "side", "channels"),
    [("quick", 8, 1), ("lenet5", 32, 1), ("cifar-cnn", 32, 3), ("INPUT -> CONV(16) -> FC(10)", 8, 1)],
)
def test_learns_one_batch_by_heart(net: str, side: int, channels: int) -> None:
    x_nchw, labels = digits(side, channels)
    model = nets.build(net, 10, (channels, side, side), seed=0)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.003)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = loss = math.nan
        for step in range(30):
            value = nn.functional.cross_entropy(model(x_nchw), labels)
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            first, loss = (value.item(), loss) if step == 0 else (first, value.item())
    assert 1.5 < first < 6
    assert loss < 0.3

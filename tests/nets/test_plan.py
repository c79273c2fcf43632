"""What a network as written becomes for images of one size: names, shapes, optional items, contradictions."""

from __future__ import annotations

import itertools
import re

import pytest

from pellucid.errors import UsageError
from pellucid.nets.notation import read
from pellucid.nets.plan import plan, whole_classes, whole_image
from pellucid.nets.sizes import ShapeError
from pellucid.nets.specs import FullyConnected


def names(text: str, image: tuple[int, ...] | None = None, classes: int | None = None) -> list[str]:
    return [item.name for item in plan(read(text), image, classes)]


def refusal(text: str, image: tuple[int, ...] | None, classes: int | None) -> str:
    with pytest.raises(UsageError) as caught:
        plan(read(text), image, classes)
    return str(caught.value)


def test_names_and_shapes() -> None:
    placed = plan(read("INPUT(3,32,32) -> [[CONV(32)]*2 -> POOL?]*2 -> [FC(512)]*1 -> DROPOUT -> FC(10)"))
    assert [(item.name, item.after) for item in placed] == [
        ("conv1", (32, 32, 32)),
        ("conv2", (32, 32, 32)),
        ("pool1", (32, 16, 16)),
        ("conv3", (32, 16, 16)),
        ("conv4", (32, 16, 16)),
        ("pool2", (32, 8, 8)),
        ("flatten", (2048,)),
        ("fc1", (512,)),
        ("dropout1", (512,)),
        ("fc2", (10,)),
    ]
    assert all(after.before == before.after for before, after in itertools.pairwise(placed))


def test_the_last_fully_connected_layer_gives_logits() -> None:
    for text in ("INPUT(1,4,4) -> FC(8) -> FC(3) -> DROPOUT", "INPUT(1,4,4) -> [FC(8)]*2", "INPUT(1,4,4) -> [FC(8)]*3"):
        found = [item.layer.activation for item in plan(read(text)) if isinstance(item.layer, FullyConnected)]
        assert found == ["relu"] * (len(found) - 1) + ["none"]
    (_, last) = plan(read("INPUT(1,4,4) -> FC(3, activation=sigmoid)"))
    assert isinstance(last.layer, FullyConnected)
    assert last.layer.activation == "sigmoid"


@pytest.mark.parametrize(
    ("side", "pools"), [(1, 0), (2, 1), (3, 1), (4, 2), (8, 3), (15, 3), (16, 4), (32, 5), (33, 5), (64, 5)]
)
def test_an_optional_pool_stays_while_the_map_can_be_halved(side: int, pools: int) -> None:
    found = names("INPUT -> [CONV(2) -> POOL?]*5 -> FC(3)", (1, side, side))
    assert found.count("flatten") == 1
    assert sum(name.startswith("pool") for name in found) == pools
    assert sum(name.startswith("conv") for name in found) == 5


def test_optional_items() -> None:
    # The shorter side decides.
    assert names("INPUT -> POOL? -> FC(3)", (1, 1, 8)) == ["flatten", "fc1"]
    # A group goes or stays as a whole.
    text = "INPUT -> [CONV(2, kernel=5, padding=valid) -> POOL]? -> FC(3)"
    assert names(text, (1, 5, 5)) == ["flatten", "fc1"]
    assert names(text, (1, 6, 6)) == ["conv1", "pool1", "flatten", "fc1"]
    # ?*N decides copy by copy, *N? about all of them.
    assert names("INPUT -> POOL?*3 -> FC(3)", (1, 4, 4)) == ["pool1", "pool2", "flatten", "fc1"]
    assert names("INPUT -> POOL*3? -> FC(3)", (1, 4, 4)) == ["flatten", "fc1"]
    # Convolutions with `same` padding always fit; others are left out like pools.
    assert names("INPUT -> CONV(2)? -> FC(3)", (1, 1, 1))[0] == "conv1"
    assert names("INPUT -> CONV(2, padding=valid)? -> FC(3)", (1, 2, 2))[0] == "flatten"


def test_only_size_makes_an_item_optional() -> None:
    assert "groups=3 does not divide the 4 channels" in refusal("INPUT -> CONV(3, groups=3)?", (4, 8, 8), None)


def test_nothing_left() -> None:
    assert refusal("INPUT -> POOL?", (1, 1, 1), None) == (
        "images of 1×1×1 are too small for every layer, all of them optional: use larger images"
    )


def test_layers_that_do_not_fit_say_what_would() -> None:
    text = "INPUT -> CONV(6, kernel=5, padding=valid) -> POOL -> CONV(16, kernel=5, padding=valid) -> POOL"
    message = refusal(f"{text} -> CONV(120, kernel=5, padding=valid) -> FC(10)", (1, 28, 28), 10)
    sentence, line, carets = message.split("\n")
    assert sentence == (
        "conv3: a 5×5 kernel does not fit the 4×4 map that reaches it: ⌊(4 − 5 + 2·0)/1⌋ + 1 = 0; "
        "write CONV(120, kernel=4, padding=valid) or padding=same; or use images of at least 32×32 (--size 32)"
    )
    assert line[carets.index("^") :].startswith("CONV(120")
    message = refusal("INPUT(1,9,9) -> [POOL]*4 -> FC(10)", None, 10)
    assert message.startswith("pool4: a 2×2 window does not fit the 1×1 map")
    assert "or use images of at least 16×16 (INPUT(1,16,16))" in message


def test_the_suggested_size_is_the_smallest_that_fits() -> None:
    text = "INPUT -> [CONV(4, kernel=3, padding=valid, stride=2)]*3 -> POOL(3) -> FC(2)"
    match = re.search(r"--size (\d+)", refusal(text, (1, 8, 8), 2))
    assert match
    side = int(match[1])
    assert plan(read(text), (1, side, side), 2)
    with pytest.raises(ShapeError, match="does not fit"):
        plan(read(text), (1, side - 1, side - 1), 2)


def test_no_size_is_suggested_where_none_would_do() -> None:
    message = refusal("INPUT -> CONV(4, kernel=2000, padding=valid) -> FC(2)", (1, 8, 8), 2)
    assert "use images" not in message
    assert "write CONV(4, kernel=8, padding=valid)" in message


@pytest.mark.parametrize(
    ("text", "corrected"),
    [
        ("INPUT -> CONV(8) -> FC(12)", "INPUT -> CONV(8) -> FC(10)"),
        ("INPUT -> CONV(8)\n  -> FC(12, bias=false)", "INPUT -> CONV(8) -> FC(10, bias=false)"),
        ("INPUT -> [FC(12)]*2", "INPUT -> [FC(12)]*2 -> FC(10)"),
        ("INPUT -> CONV(8)", "INPUT -> CONV(8) -> FC(10)"),
        ("INPUT -> CONV(8) -> FLATTEN", "INPUT -> CONV(8) -> FLATTEN -> FC(10)"),
        ("INPUT -> FC(12) -> DROPOUT", "INPUT -> FC(10) -> DROPOUT"),
    ],
)
def test_the_corrected_line(text: str, corrected: str) -> None:
    message = refusal(text, (1, 6, 6), 10)
    match = re.search(r"write '([^']+)'", message)
    assert match
    assert match[1] == corrected
    assert "10 classes" in message
    assert plan(read(match[1]), (1, 6, 6), 10)[-1].after == (10,)


def test_without_classes_a_network_may_end_anywhere() -> None:
    assert plan(read("INPUT(1,6,6) -> CONV(8)"))[-1].after == (8, 6, 6)


def test_a_last_map_of_one_by_one_is_flattened() -> None:
    assert names("INPUT -> CONV(10) -> GLOBALPOOL(avg)", (3, 8, 8), 10) == ["conv1", "pool1", "flatten"]
    assert "a map of 9×1×1, not in 10" in refusal("INPUT -> CONV(9) -> GLOBALPOOL(avg)", (3, 8, 8), 10)


def test_image_input_and_classes() -> None:
    assert refusal("INPUT -> FC(10)", None, 10).startswith(
        "the network does not say what images it takes: write INPUT(3,32,32) or give image=(3, 32, 32)"
    )
    message = refusal("INPUT(3,32,32) -> FC(10)", (1, 28, 28), 10)
    assert message == (
        "INPUT(3,32,32) and images of 1×28×28 contradict each other: write INPUT(1,28,28), or INPUT alone to take "
        "images as they come\n  INPUT(3,32,32) -> FC(10)\n  ^^^^^^^^^^^^^^"
    )
    assert names("INPUT(3,32,32) -> FC(10)", (3, 32, 32), 10) == ["flatten", "fc1"]
    message = refusal("INPUT(1,4,4) -> FC(classes)", None, None)
    assert message.startswith("FC(classes) stands for the number of classes, which is not known here: give classes=10")
    assert plan(read("INPUT(1,4,4) -> FC(classes)"), None, 7)[-1].after == (7,)
    with pytest.raises(ShapeError, match=r"conv1: .* already flattened to 10 numbers; write CONV before"):
        plan(read("INPUT -> FC(10) -> CONV(3)"), (1, 28, 28))


@pytest.mark.parametrize("image", [(3, 32), (0, 32, 32), (3, 32.0, 32), "3x32", None, (True, 8, 8), (1, 2, 3, 4)])
def test_an_image_is_three_whole_numbers(image: object) -> None:
    with pytest.raises(UsageError, match=r"expected \(channels, height, width\)"):
        whole_image(image)


@pytest.mark.parametrize("classes", [0, -1, 2.0, "10", True, None])
def test_classes_is_a_whole_number(classes: object) -> None:
    with pytest.raises(UsageError, match=r"classes=.*: expected a whole number above 0"):
        whole_classes(classes)


def test_many_layers_are_planned_quickly_and_named_in_order() -> None:
    found = names("INPUT -> [CONV(2)]*1000", (1, 8, 8))
    assert found == [f"conv{n}" for n in range(1, 1001)]

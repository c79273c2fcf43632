from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pellucid import nets
from pellucid.bundle.folder import tensors
from pellucid.bundle.rebuild import LARGEST_MAP, built
from pellucid.data.preprocess import Preprocess
from pellucid.errors import DataError


def shown(side: int, channels: int = 1) -> Preprocess:
    grey = (0.5,) * channels
    return Preprocess((side, side), "crop", channels, grey, grey)  # type: ignore[arg-type]


@pytest.mark.parametrize("net", nets.NAMES)
def test_every_network_is_rebuilt_for_its_own_weights(net: str) -> None:
    if net.startswith("vgg"):
        pytest.skip("takes gigabytes; it is built as the other ones are")
    side = 64 if net.startswith("googlenet") else 32
    own = nets.build(net, 3, (3, side, side), seed=0)
    again = built(net, shown(side, 3), ("a", "b", "c"), Path("b"), tensors(own))
    assert {name: x.shape for name, x in own.state_dict().items()} == {
        name: x.shape for name, x in again.state_dict().items()
    }
    assert all(x.device.type == "cpu" for x in again.state_dict().values())


def test_a_network_of_gigabytes_is_refused_without_being_built() -> None:
    with pytest.raises(DataError, match=r"model\.safetensors: the weights are of another network"):
        built("mlp(40000, 40000)", shown(8), ("a", "b"), Path("b"), {"w": np.zeros(3, np.float32)})


def test_few_weights_that_make_a_huge_map_are_refused() -> None:
    net, side = "INPUT -> CONV(64, kernel=1) -> POOL(max, global) -> FC(classes)", 4096
    with torch.device("meta"):
        empty = nets.build(net, 2, (1, side, side))
    arrays = {name: np.zeros(tuple(x.shape), np.float32) for name, x in empty.state_dict().items()}
    with pytest.raises(DataError, match=r"of one picture its network makes 1,073,741,824 numbers in conv1"):
        built(net, shown(side), ("a", "b"), Path("b"), arrays)
    assert 64 * side * side > LARGEST_MAP

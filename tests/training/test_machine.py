from __future__ import annotations

import pytest
import torch

from pellucid.errors import UsageError
from pellucid.recipe import Engine
from pellucid.training import machine


def test_a_device_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError, match=r"--device cuda: .* finds none on this machine; it has: cpu"):
        machine.pick_device("cuda")
    assert machine.pick_device("auto").type == "cpu"


def test_bfloat16_is_refused_when_its_convolution_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch.nn.functional.conv2d

    def wrong(x: torch.Tensor, w: torch.Tensor, padding: int) -> torch.Tensor:
        y = right(x, w, padding=padding)
        return y * 1.1 if torch.is_autocast_enabled("cpu") else y

    device = torch.device("cpu")
    expected = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert machine.bfloat16_works(device) == expected
    monkeypatch.setattr(torch.nn.functional, "conv2d", wrong)
    assert not machine.bfloat16_works(device)


def test_computing_leaves_threads_and_random_state_as_they_were() -> None:
    before, state = torch.get_num_threads(), torch.get_rng_state()
    with machine.computing(Engine(threads=1)):
        assert torch.get_num_threads() == 1
        torch.manual_seed(5)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_the_processor_has_a_name() -> None:
    assert machine.processor()

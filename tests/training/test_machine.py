from __future__ import annotations

import warnings

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


def test_what_is_not_deterministic_is_gathered_by_name_and_no_warning_leaks() -> None:
    x = torch.randn(1, 2, 6, 6, requires_grad=True)
    mode = torch.get_deterministic_debug_mode()
    filters, shown = list(warnings.filters), warnings.showwarning
    with machine.computing(Engine(threads=1)) as met:
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not met
        y, places = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
        for _ in range(2):
            torch.nn.functional.max_unpool2d(y, places, [2, 2])
        torch.zeros(5).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
        # Other warnings stay what they are: errors, here.
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)
    assert met == {"max_unpooling2d_forward_out", "put_"}
    assert machine.unsteady(met)[1].startswith("torch has no deterministic put_ here")
    assert torch.get_deterministic_debug_mode() == mode
    assert (warnings.filters, warnings.showwarning) == (filters, shown)


def test_a_plain_network_meets_nothing_unsteady() -> None:
    layers = [torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.MaxPool2d(2), torch.nn.Flatten()]
    with machine.computing(Engine(threads=1)) as met:
        torch.nn.Sequential(*layers)(torch.randn(2, 1, 6, 6)).sum().backward()
    assert not met


def test_the_processor_has_a_name() -> None:
    assert machine.processor()

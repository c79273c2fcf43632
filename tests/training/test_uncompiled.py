"""Torch's optimisers take the same steps without its compiler, and nothing imports it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from pellucid.recipe import Optimizer
from pellucid.training.uncompiled import plain

KINDS: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "fused": True}),
    (torch.optim.Adam, {"lr": 0.01, "fused": True}),
    (torch.optim.AdamW, {"lr": 0.01, "fused": True}),
    (torch.optim.Adagrad, {"lr": 0.1}),
    (torch.optim.Adadelta, {"lr": 1.0}),
]


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_the_steps_are_torchs_to_the_bit(kind: Any, settings: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(5, 3, generator=generator)
    ours, theirs = (torch.nn.Parameter(first.clone()) for _ in range(2))
    own, other = plain(kind)([ours], **settings), kind([theirs], **settings)
    assert isinstance(own, kind)
    for _ in range(5):
        ours.grad = torch.randn(5, 3, generator=generator)
        theirs.grad = ours.grad.clone()
        own.step()
        other.step()
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, first)
    assert ours.requires_grad
    other.load_state_dict(own.state_dict())


TRAIN = """
import sys
import pellucid

for optimizer in sys.argv[1:]:
    run = pellucid.train("digits", net="quick(4)", epochs=1, sample=0.1, optimizer=optimizer, out=optimizer)
    for _ in pellucid.training.resume(run.folder):
        pass
assert "torch._dynamo" not in sys.modules, "the compiler was imported"
"""


def test_no_run_imports_the_compiler(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAIN, *get_args(Optimizer)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr

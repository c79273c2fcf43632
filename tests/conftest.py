from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """`real_data("mnist")` is that folder or file of real data; the test is skipped where it is not."""

    def find(name: str) -> Path:
        root = os.environ.get("PELLUCID_DATA")
        if not root:
            pytest.skip("PELLUCID_DATA is not set")
        path = Path(root) / name
        if not path.exists():
            pytest.skip(f"PELLUCID_DATA has no {name}")
        return path

    return find


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    """torchvision, whose networks ours are compared with; the test is skipped where it is not installed.

    It is installed without its dependencies, beside a torch that its compiled part was not built for; the two operators
    which it then misses on import are declared here, and never called.
    """
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed: pip install --no-deps torchvision==0.29.2")
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
        return importlib.import_module("torchvision")

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


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

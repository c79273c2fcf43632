from __future__ import annotations

from pathlib import Path

import pytest

from pellucid.recipe import Recipe, settle


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test remembers engines in, or recalls them from, the cache of whoever runs it."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("PELLUCID_CACHE", str(cache))
    return cache


@pytest.fixture
def small() -> Recipe:
    """A run of seconds, the same to the byte wherever it runs."""
    return settle(
        Recipe(data="digits"), net="lenet5", epochs=2, precision="float32", layout="nchw", threads=1, batch_size=64
    )

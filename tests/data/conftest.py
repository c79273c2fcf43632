from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pooch
import pytest

from pellucid.data.images import Source
from pellucid.data.named import open_named


@pytest.fixture(autouse=True)
def _on_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test touches the user's cache or the network."""

    def no_network(*_: Any, **__: Any) -> str:
        raise AssertionError("a test asked for the network")

    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(pooch, "retrieve", no_network)


class RealCifar(NamedTuple):
    source: Source
    cache: Path
    """The cache that reading it has filled."""


@pytest.fixture(scope="session")
def real_cifar(real_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> RealCifar:
    """The real CIFAR-10; decompressing it takes nine seconds, hence once."""
    real_data("cifar-10")
    cache = tmp_path_factory.mktemp("cifar-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PELLUCID_CACHE", str(cache))
        source = open_named("cifar10", fetch=False)
    return RealCifar(source, cache)

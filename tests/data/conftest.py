from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest

from pellucid.data.cifar import CIFAR10, Distribution
from pellucid.data.images import Source
from pellucid.data.named import open_named


@pytest.fixture(autouse=True)
def _on_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test touches the user's cache or the network."""

    def no_network(*_: Any, **__: Any) -> str:
        raise AssertionError("a test asked for the network")

    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(pooch, "retrieve", no_network)


@pytest.fixture(scope="session")
def real_cifar(real_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Path]:
    """The real CIFAR-10, and the cache that reading it filled. Decompressing takes nine seconds, hence once."""
    real_data("cifar-10")
    cache = tmp_path_factory.mktemp("cifar-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PELLUCID_CACHE", str(cache))
        return open_named("cifar10", fetch=False), cache


@pytest.fixture
def small_cifar() -> Callable[[Path, str], Distribution]:
    """Writes an archive in the form of CIFAR-10's, of 3 pictures a file; gives what its publisher would say of it."""

    def write(path: Path, mode: str) -> Distribution:
        batch = {"data": np.zeros((3, 3072), np.uint8), "labels": [0, 9, 5]}
        meta = {"label_names": [f"class {n}" for n in range(10)]}
        files = {
            name: pickle.dumps(meta if name in CIFAR10.meta else batch | {"batch_label": name}, 4)
            for name in CIFAR10.files
        }
        with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
            for name, raw in files.items():
                member = tarfile.TarInfo(f"{CIFAR10.folder}/{name}")
                member.size = len(raw)
                tar.addfile(member, io.BytesIO(raw))

        def sums(names: dict[str, str]) -> dict[str, str]:
            return {name: hashlib.md5(files[name]).hexdigest() for name in names}

        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        train, test, meta_sums = sums(CIFAR10.train), sums(CIFAR10.test), sums(CIFAR10.meta)
        return dataclasses.replace(CIFAR10, train=train, test=test, meta=meta_sums, md5=md5)

    return write

"""Equal recipes give equal bytes, however many threads decode, wherever the pixels are kept, whatever lay first."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn

from pellucid.data import load, pack, reading
from pellucid.data.pack import pack_folder
from pellucid.data.pack_index import FILE
from pellucid.data.preprocess import Preprocess
from pellucid.files import read_tensors
from pellucid.recipe import Recipe, settle
from pellucid.training import Run, run
from pellucid.training.pictures import Terms

NET = "INPUT -> CONV(4, norm=batch) -> POOL -> DROPOUT(0.2) -> FC(classes)"


@pytest.fixture(scope="module")
def photographs() -> dict[str, bytes]:
    """Pieces of two real photographs, of several sizes, as the files of two classes."""
    rng, files = np.random.default_rng(0), {}
    for label, photo in zip(("china", "flower"), load_sample_images().images, strict=True):
        for n in range(40):
            side = int(rng.integers(60, 200))
            y, x = (int(rng.integers(0, extent - side)) for extent in photo.shape[:2])
            buffer = io.BytesIO()
            piece = Image.fromarray(np.ascontiguousarray(photo[y : y + side, x : x + side + n % 3]))
            piece.save(buffer, "JPEG" if n % 4 else "PNG")
            files[f"{label}/{n:02}.{'jpg' if n % 4 else 'png'}"] = buffer.getvalue()
    return files


def laid(folder: Path, files: dict[str, bytes], *, backwards: bool = False) -> Path:
    for name in sorted(files, reverse=backwards):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(files[name])
    return folder


def trained(data: Path, out: Path, *, cache: bool) -> Run:
    recipe = settle(
        Recipe(data=str(data)), net=NET, epochs=2, precision="float32", layout="nhwc", threads=1, size=16, lr=0.01
    )
    *_, last = run(recipe, out=out, terms=Terms(cache=cache))
    assert isinstance(last, Run)
    return last


def kept(data: Path) -> dict[str, Any]:
    """What the pack of the pictures holds, but for what tells when it was made."""
    any_size = Preprocess((1, 1), "crop", 3, (0.0,) * 3, (1.0,) * 3)
    (folder,) = (path.parent for path in pack_folder(str(data), any_size).parent.glob(f"*/{FILE}"))
    arrays = read_tensors(folder / FILE)
    found: dict[str, Any] = {name: array.tobytes() for name, array in arrays.items() if name != "fact mtime"}
    for part in ("pixels", "signatures"):
        (path,) = folder.glob(f"{part}-*.u8")
        found[part] = path.read_bytes()
    return found


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Gives each run a cache of its own."""

    def fresh(name: str) -> None:
        monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / f"cache-{name}"))

    return fresh


def test_the_number_of_workers_the_cache_and_the_order_of_files_change_no_byte(
    tmp_path: Path, photographs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, caches: Callable[[str], None]
) -> None:
    data = laid(tmp_path / "data" / "photos", photographs)
    weights, packs = [], []
    for count, cache in ((1, True), (2, True), (5, True), (2, False)):
        for module in (reading, load, pack):
            monkeypatch.setattr(module, "usable_cores", lambda count=count: count)
        caches(f"{count}-{cache}")
        made = trained(data, tmp_path / f"run-{count}-{cache}", cache=cache)
        weights.append((made.folder / "bundle" / "model.safetensors").read_bytes())
        if cache:
            packs.append(kept(data))
    other = laid(tmp_path / "other" / "photos", photographs, backwards=True)
    caches("other")
    made = trained(other, tmp_path / "run-other", cache=True)
    weights.append((made.folder / "bundle" / "model.safetensors").read_bytes())
    packs.append(kept(other))
    assert len(weights) == 5
    assert len(set(weights)) == 1
    assert all(pack == packs[0] for pack in packs)
    assert len(packs[0]["pixels"]) == len(photographs) * 16 * 16 * 3


class Unpooling(nn.Module):
    """A network with an operation that torch has no deterministic kernel for."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, places = nn.functional.max_pool2d(x, 2, return_indices=True)
        return self.fc(nn.functional.max_unpool2d(y, places, [2, 2]).flatten(1))  # type: ignore[no-any-return]


def test_a_run_says_which_operation_is_not_deterministic(tmp_path: Path) -> None:
    recipe = settle(Recipe(data="digits"), epochs=1, precision="float32", layout="nchw", threads=1, size=8)
    *_, last = run(recipe, out=tmp_path / "run", model=Unpooling())
    assert isinstance(last, Run)
    assert [note for note in last.notes if "deterministic" in note] == [
        "torch has no deterministic max_unpooling2d_forward_out here, so that another run of this recipe may differ in "
        "its last digits"
    ]
    assert torch.get_deterministic_debug_mode() == 0

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from pellucid import nets
from pellucid.data.batches import Batches
from pellucid.data.preprocess import Preprocess
from pellucid.errors import DataError
from pellucid.files import read_tensors, read_tensors_metadata, write_tensors
from pellucid.recipe import Engine, Optimizer, Recipe, settle
from pellucid.training.checkpoint import forget_last, load_checkpoint, save_checkpoint
from pellucid.training.loop import Training, place
from pellucid.training.losses import make_loss


@pytest.fixture(autouse=True)
def checkpoints(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()


def training(name: str = "adam", net: str = "quick") -> Training:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 16, 16, 3), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 4, (40,), generator=generator)
    preprocess = Preprocess(size=(16, 16), resize="crop", channels=3, mean=(0.5,) * 3, std=(0.3,) * 3)
    engine = Engine(precision="float32", layout="nhwc", threads=1)
    recipe = settle(Recipe(engine=engine), epochs=3, batch_size=8, optimizer=name, lr=0.01, ema=0.9)
    model = place(nets.build(net, 4, (3, 16, 16), seed=0), engine, torch.device("cpu"))
    batches = Batches(pixels, labels, preprocess, ("flip", "shift"), 8, seed=3)
    return Training(model, batches, recipe, make_loss(recipe))


# With a switch after the third step of fifteen the checkpoint lies on the border of two optimisers.
@pytest.mark.parametrize("name", [*get_args(Optimizer), "adam+sgd@0.2", "adam+momentum@0.1", "sgd+adam@0.25"])
def test_a_run_goes_on_to_the_same_bits(tmp_path: Path, name: str) -> None:
    whole = training(name)
    for _ in whole.run_epoch():
        if whole.step == 3:
            save_checkpoint(tmp_path, whole, {"seconds": 1.5})
    other = training(name)
    facts = load_checkpoint(tmp_path, other)
    assert facts is not None
    assert facts.facts["seconds"] == 1.5
    assert (other.step, other.seen) == (3, 24)
    list(other.run_epoch())
    assert other.sums() == whole.sums()
    for one, two in ((whole.model, other.model), (whole.kept, other.kept)):
        for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, training()) is None


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, training(net="INPUT -> FC(4)"), {})
    with pytest.raises(DataError, match="not a checkpoint of this run"):
        load_checkpoint(tmp_path, training())


def checkpoints_of(whole: Training, folder: Path) -> tuple[Path, Path]:
    """Two checkpoints, of steps 2 and 3."""
    for _ in whole.run_epoch():
        save_checkpoint(folder, whole, {"seconds": 1.0})
        if whole.step == 3:
            break
    return folder / "checkpoints" / "last.safetensors", folder / "checkpoints" / "previous.safetensors"


@pytest.mark.parametrize("seed", range(12))
def test_whatever_byte_of_a_checkpoint_changes_the_one_before_is_used(tmp_path: Path, seed: int) -> None:
    last, _ = checkpoints_of(training(), tmp_path)
    data = bytearray(last.read_bytes())
    rng = np.random.default_rng(seed)
    header = 8 + int.from_bytes(data[:8], "little")
    # Half of them in the header, which is a small part of the file.
    at = int(rng.integers(header) if seed % 2 else rng.integers(header, len(data)))
    data[at] ^= 1 << int(rng.integers(8))
    last.write_bytes(data)
    other = training()
    found = load_checkpoint(tmp_path, other)
    assert found is not None
    assert found.damage is not None
    assert "last.safetensors" in found.damage
    assert other.step == 2


@pytest.mark.parametrize("keep", [0, 7, 100, -10])
def test_a_torn_checkpoint_is_noticed(tmp_path: Path, keep: int) -> None:
    last, previous = checkpoints_of(training(), tmp_path)
    last.write_bytes(last.read_bytes()[:keep])
    found = load_checkpoint(tmp_path, training())
    assert found is not None
    assert found.facts["step"] == 2
    previous.write_bytes(previous.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"no checkpoint of this run is sound; take .*checkpoints away"):
        load_checkpoint(tmp_path, training())


def test_a_kill_between_the_two_renamings_leaves_the_one_before(tmp_path: Path) -> None:
    last, _ = checkpoints_of(training(), tmp_path)
    last.unlink()
    found = load_checkpoint(tmp_path, training())
    assert found is not None
    assert (found.facts["step"], found.damage) == (2, f"{last} is missing")


def test_a_damaged_checkpoint_never_takes_the_place_of_a_sound_one(tmp_path: Path) -> None:
    last, previous = checkpoints_of(training(), tmp_path)
    last.write_bytes(b"")
    other = training()
    assert load_checkpoint(tmp_path, other) is not None
    forget_last(tmp_path)
    forget_last(tmp_path)
    sound = previous.read_bytes()
    save_checkpoint(tmp_path, other, {})
    assert previous.read_bytes() == sound


def test_a_file_without_its_checksum_is_no_checkpoint(tmp_path: Path) -> None:
    last, previous = checkpoints_of(training(), tmp_path)
    previous.unlink()
    write_tensors(last, read_tensors(last), {"state": read_tensors_metadata(last)["state"]})
    with pytest.raises(DataError, match="no checksum of itself"):
        load_checkpoint(tmp_path, training())


def test_the_best_weights_come_back(tmp_path: Path) -> None:
    best = {"layer.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
    save_checkpoint(tmp_path, training(), {}, best)
    found = load_checkpoint(tmp_path, training())
    assert found is not None
    assert found.best is not None
    assert found.best.keys() == best.keys()
    np.testing.assert_array_equal(found.best["layer.weight"], best["layer.weight"])

"""One byte of a checkpoint that is not as it was written is noticed, said, and made good by the one before."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from tests.faults.conftest import Tried
from tests.faults.harness import DIGITS, Forks, Whole, resume, step, train
from tests.faults.test_operations import listed

#: Two optimisers' moments, an average and batch norm's statistics: every kind of array that there is in a checkpoint.
RECIPE = (
    *DIGITS[:2], "INPUT(1,8,8) -> CONV(4, norm=batch) -> POOL -> DROPOUT(0.3) -> FC(classes)", *DIGITS[3:], "--sample",
    "0.1", "--epochs", "3", "--augment", "shift", "--optimizer", "adam",
)  # fmt: skip

KINDS = ("model", "optimizer", "average", "best", "sums")


@pytest.fixture(scope="module")
def stopped(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed in its second epoch, with two checkpoints behind it."""
    place = tmp_path_factory.mktemp("stopped")
    operations = listed(forks, place / "listed", train(RECIPE))
    written = [at for at, (_, path) in enumerate(operations, 1) if path.endswith("checkpoints/last.safetensors")]
    (place / "work").mkdir()
    assert forks.run(place / "work", *train(RECIPE), kind="die", at=written[len(written) // 2] + 2).code == -9
    assert 0 < step(place / "work" / "run", "previous") < step(place / "work" / "run")
    return place / "work"


def regions(data: bytes) -> dict[str, tuple[int, int]]:
    """Where in a checkpoint each of its parts begins and ends."""
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length]
    header = json.loads(text)
    found = {"the header's length": (0, 8), "the header": (8, 8 + length)}
    for name, value in header.pop("__metadata__").items():
        stored = json.dumps(value, ensure_ascii=False).encode()
        at = text.index(stored)
        found[f"the metadata {name}"] = (8 + at + 1, 8 + at + len(stored) - 1)
    for kind in KINDS:
        ranges = [entry["data_offsets"] for name, entry in header.items() if name.startswith(f"{kind}.")]
        assert ranges, kind
        # Anywhere from the first array of the kind to the last; they are stored in the order of their names.
        found[f"the arrays {kind}"] = (8 + length + min(r[0] for r in ranges), 8 + length + max(r[1] for r in ranges))
    return found


def _resumed(forks: Forks, work: Path, *, damaged: bool = True) -> None:
    """Go on, which says what was damaged and what was taken instead."""
    before = step(work / "run", "previous")
    ended = forks.run(work, *resume())
    assert ended.code == 0, ended.err
    ended.told()
    if damaged:
        assert "last.safetensors" in ended.out + ended.err
        assert f"the checkpoint before it was taken, of step {before}" in ended.out.replace("\n", " ")


def _flip(path: Path, span: tuple[int, int], drawn: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    data[int(drawn.integers(*span))] ^= 1 << int(drawn.integers(8))
    path.write_bytes(data)


@pytest.mark.parametrize("times", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_one_bit_of_any_part(
    times: int, stopped: Path, forks: Forks, whole: Whole, tmp_path: Path, tried: Tried
) -> None:
    parts = regions((stopped / "run" / "checkpoints" / "last.safetensors").read_bytes())
    assert len(parts) >= 8
    drawn = np.random.default_rng([9, times])
    for number, (part, span) in enumerate(parts.items()):
        # In the quick suite one part in two.
        for again in range(times if times > 1 else number % 2):
            work = tmp_path / f"{number}-{again}"
            shutil.copytree(stopped, work)
            _flip(work / "run" / "checkpoints" / "last.safetensors", span, drawn)
            _resumed(forks, work)
            tried(f"one bit of the last checkpoint flipped: {part}", work / "run", whole(train(RECIPE)), killed=False)


def _shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _another(path: Path) -> None:
    path.write_bytes(os.urandom(4096))


DAMAGE: Mapping[str, Callable[[Path], object]] = {
    "shortened by a byte": _shorter,
    "cut in half": _half,
    "emptied": _emptied,
    "zeroed": _zeroed,
    "longer by a byte": _longer,
    "other bytes": _another,
    "deleted": Path.unlink,
}


@pytest.fixture
def work(stopped: Path, tmp_path: Path) -> Path:
    """A copy of the stopped run, to be damaged."""
    return shutil.copytree(stopped, tmp_path / "work")


SOME = [pytest.param(n, marks=() if n in {"cut in half", "deleted"} else pytest.mark.slow) for n in DAMAGE]


@pytest.mark.parametrize("name", SOME)
def test_the_last_checkpoint(name: str, work: Path, forks: Forks, whole: Whole, tried: Tried) -> None:
    DAMAGE[name](work / "run" / "checkpoints" / "last.safetensors")
    _resumed(forks, work)
    tried(f"the last checkpoint damaged: {name}", work / "run", whole(train(RECIPE)), killed=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["previous", "best"])
def test_what_is_not_needed_may_be_damaged(name: str, work: Path, forks: Forks, whole: Whole, tried: Tried) -> None:
    _emptied(work / "run" / "checkpoints" / f"{name}.safetensors")
    _resumed(forks, work, damaged=False)
    tried(f"a checkpoint that is not needed emptied: {name}", work / "run", whole(train(RECIPE)), killed=False)


@pytest.mark.slow
def test_the_one_before_in_the_place_of_the_last(work: Path, forks: Forks, whole: Whole, tried: Tried) -> None:
    folder = work / "run" / "checkpoints"
    shutil.copyfile(folder / "previous.safetensors", folder / "last.safetensors")
    _resumed(forks, work, damaged=False)
    tried("the checkpoint before in the place of the last", work / "run", whole(train(RECIPE)), killed=False)


@pytest.mark.parametrize("name", SOME)
def test_no_sound_checkpoint_is_a_sentence(name: str, work: Path, forks: Forks, whole: Whole, tried: Tried) -> None:
    """And what it says is to be done does it. Where both are gone there is no damage: it begins again."""
    folder = work / "run" / "checkpoints"
    for checkpoint in ("last", "previous"):
        DAMAGE[name](folder / f"{checkpoint}.safetensors")
    ended = forks.run(work, *resume())
    if name == "deleted":
        assert ended.code == 0, ended.err
        assert "has no checkpoint, so it begins again at the first step" in ended.out
    else:
        assert ended.code == 3, ended.err
        assert "no checkpoint of this run is sound" in ended.told()
        shutil.rmtree(folder)
        ended = forks.run(work, *resume())
        assert ended.code == 0, ended.err
    ended.told()
    tried(f"both checkpoints damaged: {name}", work / "run", whole(train(RECIPE)), killed=False)


@pytest.mark.parametrize("at", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 15) if n != 4)])
def test_killed_while_going_on_from_the_one_before(
    at: int, work: Path, forks: Forks, whole: Whole, tried: Tried
) -> None:
    """The damaged one must not take the place of the sound one on the way."""
    _half(work / "run" / "checkpoints" / "last.safetensors")
    assert forks.run(work, *resume(), kind="die", at=at).code == -9
    assert step(work / "run") > 0 or step(work / "run", "previous") > 0
    ended = forks.run(work, *resume())
    assert ended.code == 0, ended.err
    tried("the last checkpoint cut in half, and killed while going on", work / "run", whole(train(RECIPE)), resumed=2)


def test_one_bit_of_another_file_of_the_run(stopped: Path, forks: Forks, tmp_path: Path) -> None:
    """What a run is resumed by besides its checkpoint is text: damage that can be seen is a sentence."""
    for name, cut in (("recipe.json", 40), ("images.csv", 200), ("result.json", 0)):
        work = tmp_path / name
        shutil.copytree(stopped, work)
        path = work / "run" / name
        path.write_bytes(path.read_bytes()[:cut] if path.exists() else b"{")
        ended = forks.run(work, *resume())
        assert ended.code == 3, ended.err
        assert str(Path("run") / name) in ended.told()

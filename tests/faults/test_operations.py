"""A process that dies at any operation on files, or whose machine loses power there, has lost nothing."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.faults.conftest import Tried
from tests.faults.harness import TINY, Forks, Whole, photographs, recover, resume, step, train

#: Parts that the long tests are cut into, so that several processes can share them.
PARTS = 8

#: The last step of the run: of 130 pictures 32 each, in two epochs; a remainder of one would join the batch before it.
LAST_STEP = 10

#: Operations tried in the quick suite, spread over the run.
QUICK = 4

#: Operations after which the disk is not as before, to whoever reads it.
CHANGES = {"open", "write", "mkdir", "rmdir", "replace", "rename", "unlink", "link", "ftruncate"}

Operation = list[str]


def listed(forks: Forks, folder: Path, begin: Sequence[str]) -> list[Operation]:
    """Every operation on files of an unbroken run: its name, and the path."""
    folder.mkdir()
    ended = forks.run(folder, *begin, log=folder.parent / "operations")
    assert ended.code == 0, ended.err
    return [json.loads(line) for line in (folder.parent / "operations").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def operations(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> list[Operation]:
    place = tmp_path_factory.mktemp("listed")
    found = listed(forks, place / "work", train(TINY))
    assert step(place / "work" / "run") == LAST_STEP
    return found


def _die(forks: Forks, work: Path, begin: Sequence[str], at: int, **fault: object) -> None:
    """Run until operation `at`, and die there."""
    work.mkdir()
    code = forks.run(work, *begin, at=at, **{"kind": "die", **fault}).code
    assert code == -signal.SIGKILL


def _chosen(operations: Sequence[Operation], before: set[str]) -> list[int]:
    """The numbers before which the disk is not as it was one earlier: the operation before is one of these."""
    numbers = [at for at in range(2, len(operations) + 1) if operations[at - 2][0] in before]
    return [1, *numbers]


def test_what_is_counted_is_all_that_is_written(
    operations: list[Operation], forks: Forks, tmp_path: Path, work: Path
) -> None:
    """By the interpreter's own account of every file opened to be written, renamed, linked, made or taken away."""
    ended = forks.run(work, "@watched", tmp_path / "seen", *train(TINY), log=tmp_path / "counted")
    assert ended.code == 0, ended.err
    counted = [json.loads(line) for line in (tmp_path / "counted").read_text("utf-8").splitlines()]
    named = {path for name, path in counted if name not in {"write", "fsync", "ftruncate"}} - {"."}
    seen = set((tmp_path / "seen").read_text("utf-8").splitlines())
    assert len(seen) > 50
    # Names that are drawn at random are those of this run: the sets are equal to the name.
    assert named == seen
    assert len(counted) == len(operations)


@pytest.mark.parametrize("number", range(QUICK))
def test_killed_at_a_file_operation(
    number: int, operations: list[Operation], forks: Forks, whole: Whole, tmp_path: Path, tried: Tried
) -> None:
    at = 1 + (len(operations) - 1) * number // (QUICK - 1)
    _die(forks, tmp_path / "work", train(TINY), at, half=True)
    last = recover(forks, tmp_path / "work", train(TINY))
    assert last.code == 0, last.err
    tried("killed at a file operation", tmp_path / "work" / "run", whole(train(TINY)))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_every_file_operation(
    part: int, operations: list[Operation], forks: Forks, whole: Whole, tmp_path: Path, tried: Tried
) -> None:
    for at in _chosen(operations, {"open", "write", "mkdir", "replace", "rename", "unlink", "link", "ftruncate"})[
        part::PARTS
    ]:
        for half in (False, True) if operations[at - 1][0] == "write" else (False,):
            work = tmp_path / f"{at}-{half}"
            _die(forks, work, train(TINY), at, half=half)
            last = recover(forks, work, train(TINY))
            assert last.code == 0, (at, operations[at - 1], last.err)
            tried("killed at a file operation", work / "run", whole(train(TINY)))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_every_file_operation_of_going_on(
    part: int, operations: list[Operation], forks: Forks, whole: Whole, tmp_path: Path, tried: Tried
) -> None:
    """Killed in the middle of an epoch, and killed again at each operation of the beginning of going on."""
    middle = _middle(operations)
    for at in range(1 + part, 41, PARTS):
        work = tmp_path / str(at)
        _die(forks, work, train(TINY), middle)
        code = forks.run(work, *resume(), kind="die", at=at).code
        assert code in {0, -signal.SIGKILL}
        last = recover(forks, work, train(TINY))
        assert last.code == 0, (at, last.err)
        tried("killed at a file operation of going on", work / "run", whole(train(TINY)), resumed=2)


def _middle(operations: list[Operation]) -> int:
    """The operation after the third checkpoint is in its place."""
    return [at for at, (name, path) in enumerate(operations, 1) if path.endswith("last.safetensors")][2] + 1


def _finished(operations: Sequence[Operation]) -> int:
    """How many checkpoints have their name and have been flushed under it."""
    finished, named = 0, 0
    for name, path in operations:
        named += name == "replace" and path.endswith("checkpoints/last.safetensors")
        if name == "fsync" and path.endswith("checkpoints"):
            finished = named
    return finished


@pytest.mark.parametrize("keep_names", [False, True])
@pytest.mark.parametrize("part", [*(pytest.param(n, marks=pytest.mark.slow) for n in range(PARTS)), "middle"])
def test_lost_power_at_a_file_operation(
    part: int | str,
    keep_names: bool,
    operations: list[Operation],
    forks: Forks,
    whole: Whole,
    tmp_path: Path,
    tried: Tried,
) -> None:
    """What was not flushed is gone; and no checkpoint that was finished."""
    numbers = _chosen(operations, CHANGES | {"fsync"} if keep_names else {"fsync"})
    middle = _middle(operations)
    numbers = numbers[part::PARTS] if isinstance(part, int) else [max(at for at in numbers if at <= middle)]
    for at in numbers:
        before, work = tmp_path / f"{at}-before", tmp_path / f"{at}-{keep_names}"
        _die(forks, before, train(TINY), at, kind="power", after=work, keep_names=keep_names)
        # One after each step, and it is finished when its folder has been flushed.
        done = _finished(operations[: at - 1])
        assert max(step(work / "run"), step(work / "run", "previous")) >= min(done, LAST_STEP)
        last = recover(forks, work, train(TINY))
        assert last.code == 0, (at, operations[at - 1], last.err)
        tried("power lost at a file operation", work / "run", whole(train(TINY)))


@pytest.mark.slow
def test_killed_at_every_operation_on_a_pack(
    forks: Forks, whole: Whole, photos: Path, tmp_path: Path, tried: Tried
) -> None:
    """Pictures are packed before the run has a folder: begun again, it finds half a pack, and nothing comes of that."""
    begin = train(photographs(photos))
    operations = listed(forks, tmp_path / "listed", begin)
    packing = [at for at, (_, path) in enumerate(operations, 1) if path.startswith("cache")]
    assert len(packing) > 10
    for at in packing:
        work = tmp_path / str(at)
        _die(forks, work, begin, at, half=True)
        last = recover(forks, work, begin)
        assert last.code == 0, (at, last.err)
        tried("killed at an operation on the pack of pictures", work / "run", whole(begin))

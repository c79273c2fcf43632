"""A disk that is full, fails or takes only a part ends a run with a sentence, and the run goes on when it can again."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.conftest import Tried
from tests.faults.harness import TINY, Ended, Forks, Whole, photographs, recover, train
from tests.faults.test_operations import listed

#: Operations that can be refused, what refuses them, and how it is said.
REFUSALS = {
    "full": (["write"], errno.ENOSPC, "no space left on the disk"),
    "full, before a file": (["open"], errno.ENOSPC, "no space left on the disk"),
    "full, for a folder": (["mkdir"], errno.ENOSPC, "no space left on the disk"),
    "over its quota": (["write"], errno.EDQUOT, "no space left on the disk"),
    "failing at a write": (["write"], errno.EIO, "the system refused to write it (Input/output error)"),
    "failing at a flush": (["fsync"], errno.EIO, "the system refused to write it (Input/output error)"),
    "failing at a renaming": (["replace", "rename"], errno.EIO, "the system refused to write it (Input/output error)"),
    "read-only from now on": (["open"], errno.EROFS, "read-only"),
}


#: Those of the quick suite.
QUICK = ("full", "failing at a renaming")


@pytest.fixture(scope="module")
def operations(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    return listed(forks, tmp_path_factory.mktemp("listed") / "work", train(TINY))


def refused(ended: Ended, said: str, work: Path) -> None:
    """One sentence, exit code 1, and nothing that looks whole and is not."""
    assert ended.code == 1, ended.err
    assert said in ended.told(), ended.err
    assert ended.err.count("pellucid: ") == 1
    for path in work.rglob("*.json"):
        json.loads(path.read_text("utf-8"))
    assert not list((work / "run").rglob("*.tmp"))


def _try(name: str, at: int, forks: Forks, work: Path, unbroken: Path, tried: Tried, *, stays: bool) -> None:
    work.mkdir()
    only, code, said = REFUSALS[name]
    ended = forks.run(work, *train(TINY), kind="refuse", at=at, only=only, code=code, stays=stays)
    refused(ended, said, work)
    last = recover(forks, work, train(TINY))
    assert last.code == 0, last.err
    tried(f"the disk refuses: {name}", work / "run", unbroken, killed=False)


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in REFUSALS if n not in QUICK)]
)
def test_a_disk_that_refuses(
    name: str, operations: list[list[str]], forks: Forks, whole: Whole, tmp_path: Path, tried: Tried
) -> None:
    """In the middle of the run, and from then on."""
    count = sum(operation in REFUSALS[name][0] for operation, _ in operations)
    _try(name, 1 + count // 2, forks, tmp_path / "work", whole(train(TINY)), tried, stays=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSALS)
def test_a_disk_that_refuses_at_each_place(
    name: str, operations: list[list[str]], forks: Forks, whole: Whole, tmp_path: Path, tried: Tried
) -> None:
    """Once, or from then on, by turns."""
    paths = [path for operation, path in operations if operation in REFUSALS[name][0]]
    for at, path in enumerate(paths, 1):
        if path == ".":
            continue  # a folder that is there need not be made
        _try(name, at, forks, tmp_path / str(at), whole(train(TINY)), tried, stays=at % 2 == 0)


@pytest.mark.parametrize("fault", [{"kind": "short"}, {"alarms": 0.0005}], ids=["part", "signals"])
def test_writes_that_take_a_part_and_calls_that_are_interrupted_are_finished(
    fault: dict[str, object], forks: Forks, whole: Whole, work: Path, tried: Tried
) -> None:
    """Half of what each call is given; and two thousand signals a second, which break into system calls (EINTR)."""
    ended = forks.run(work, *train(TINY), **fault)
    assert ended.code == 0, ended.err
    assert ended.told() == whole_said(ended)
    name = "writes that take a part" if "kind" in fault else "system calls interrupted by signals"
    tried(name, work / "run", whole(train(TINY)), resumed=0, killed=False)


def whole_said(ended: Ended) -> str:
    """The last line on stderr of a run that went well: none."""
    assert not ended.err
    return ""


def test_files_may_not_grow(forks: Forks, whole: Whole, work: Path, tried: Tried) -> None:
    """The system's own refusal, not one made here: no file may be larger than a checkpoint is."""
    unbroken = whole(train(TINY))
    size = (unbroken / "checkpoints" / "last.safetensors").stat().st_size
    limit = size - 1000
    assert max((unbroken / name).stat().st_size for name in ("recipe.json", "environment.json")) < limit
    ended = forks.run(work, *train(TINY), file_size=limit)
    refused(ended, "larger than the disk", work)
    last = recover(forks, work, train(TINY))
    assert last.code == 0, last.err
    tried("a limit on the size of files", work / "run", unbroken, killed=False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 128 KiB; skipped where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=128k,nr_inodes=1k", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only an administrator mounts a disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("free", [8_000, 30_000, 60_000])
def test_a_small_disk_that_is_really_full(
    free: int, small_disk: Path, forks: Forks, whole: Whole, tmp_path: Path, tried: Tried
) -> None:
    work = small_disk / "work"
    work.mkdir()
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(128 * 1024 - free))
    ended = forks.run(work, *train(TINY))
    refused(ended, "no space left on the disk", work)
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    last = recover(forks, work, train(TINY))
    assert last.code == 0, last.err
    tried("a small disk that is really full", work / "run", whole(train(TINY)), killed=False)


@pytest.mark.slow
def test_a_pack_that_cannot_be_written_is_said(
    forks: Forks, whole: Whole, photos: Path, work: Path, tried: Tried
) -> None:
    begin = train(photographs(photos))
    ended = forks.run(work, *begin, kind="refuse", at=2, only=["write"], stays=True)
    refused(ended, "the decoded pictures could not be kept there (No space left on device): make room", work)
    last = recover(forks, work, begin)
    assert last.code == 0, last.err
    tried("the disk refuses: full, while pictures are packed", work / "run", whole(begin), killed=False)


def test_a_folder_that_may_not_be_written_to(forks: Forks, work: Path) -> None:
    """Root may write everywhere: the refusal is the system's where the tests are run by somebody else."""
    (work / "mine").mkdir(mode=0o500)
    if os.access(work / "mine", os.W_OK):
        pytest.skip("whoever runs the tests may write anywhere")
    refused(forks.run(work, *train(TINY, out="mine/run")), "not allowed to write in", work)

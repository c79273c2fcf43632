"""Pictures taken away in the middle of a run end it with a sentence at most, and with them back it ends as it would."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.conftest import Tried
from tests.faults.harness import Child, Forks, Whole, ended, photographs, resume, step, train, wait_for

#: How the pictures are held: in memory, in a pack mapped into it, or decoded anew every epoch.
HELD = ("memory", "pack", "streamed")


@pytest.fixture
def data(photos: Path, tmp_path: Path) -> Path:
    """Pictures of this test's own, to be taken away."""
    return Path(shutil.copytree(photos, tmp_path / "pictures"))


def _begin(held: str, data: Path) -> list[str]:
    """The arguments, with a pack or without one."""
    begin = train((*photographs(data), "--epochs", "12"))
    if held == "pack":
        return begin
    return [*begin, "--no-cache"]


def _before(held: str) -> list[str]:
    return {"memory": [], "pack": ["@mapped"], "streamed": ["@streamed"]}[held]


def _paused(forks: Forks, work: Path, *arguments: str) -> Child:
    """A run that has taken some steps, and stands still."""
    child = forks.start(work, *arguments)
    assert wait_for(lambda: step(work / "run") > 2, child)
    child.signal(signal.SIGSTOP)
    assert not ended(child), "the run was over before anything could be taken away"
    return child


@pytest.mark.parametrize(
    "held", ["streamed", *(pytest.param(held, marks=pytest.mark.slow) for held in ("memory", "pack"))]
)
def test_the_folder_is_renamed_away_and_comes_back(
    held: str, data: Path, forks: Forks, whole: Whole, work: Path, tried: Tried
) -> None:
    begin = _begin(held, data)
    unbroken = whole(begin)
    child = _paused(forks, work, *_before(held), *begin)
    away = data.rename(data.with_name("away"))
    child.signal(signal.SIGCONT)
    stopped = child.wait()
    # From memory or a pack it is trained to the end; a bundle's self-test is made of picture files.
    assert stopped.code == 3, stopped.err
    assert "cannot be read" in stopped.told()
    assert step(work / "run") > 2
    again = forks.run(work, *_before(held), *resume())
    assert again.code == 3
    assert "neither a data set's name nor a path that exists" in again.told()
    away.rename(data)
    last = forks.run(work, *_before(held), *resume())
    assert last.code == 0, last.err
    tried(f"the pictures taken away in mid-run ({held})", work / "run", unbroken, killed=False)


@pytest.mark.slow
@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("change", ["removed", "cut in half", "another"])
def test_one_picture_is_changed_and_put_back(
    held: str, change: str, data: Path, forks: Forks, whole: Whole, work: Path, tried: Tried
) -> None:
    begin = _begin(held, data)
    unbroken = whole(begin)
    child = _paused(forks, work, *_before(held), *begin)
    one, other = sorted((data / "daisy").iterdir())[3:5]
    raw = one.read_bytes()
    if change == "removed":
        one.unlink()
    else:
        one.write_bytes(raw[: len(raw) // 2] if change == "cut in half" else other.read_bytes())
    child.signal(signal.SIGKILL)
    child.wait()
    refused = forks.run(work, *_before(held), *resume())
    assert refused.code == 3, refused.err
    assert "its pictures are not those that run began with" in refused.told()
    one.write_bytes(raw)
    last = forks.run(work, *_before(held), *resume())
    assert last.code == 0, last.err
    tried(f"one picture lost or changed in mid-run: {change} ({held})", work / "run", unbroken)


@pytest.mark.parametrize("change", ["cut in half", pytest.param("removed", marks=pytest.mark.slow)])
def test_one_picture_is_lost_while_they_are_decoded_anew(
    change: str, data: Path, forks: Forks, whole: Whole, work: Path, tried: Tried
) -> None:
    begin = _begin("streamed", data)
    unbroken = whole(begin)
    child = _paused(forks, work, "@streamed", *begin)
    one = sorted((data / "daisy").iterdir())[3]
    raw = one.read_bytes()
    if change == "removed":
        one.unlink()
    else:
        one.write_bytes(raw[: len(raw) // 2])
    child.signal(signal.SIGCONT)
    stopped = child.wait()
    assert stopped.code == 3, stopped.err
    assert one.name in stopped.told()
    one.write_bytes(raw)
    last = forks.run(work, "@streamed", *resume())
    assert last.code == 0, last.err
    tried(f"one picture lost while decoding: {change}", work / "run", unbroken, killed=False)


def _gone(folder: Path) -> None:
    shutil.rmtree(folder)


def _cut(folder: Path) -> None:
    for path in folder.rglob("pixels-*.u8"):
        path.write_bytes(path.read_bytes()[:5000])


def _cut_index(folder: Path) -> None:
    for path in folder.rglob("index.safetensors"):
        path.write_bytes(path.read_bytes()[:300])


LOSSES: dict[str, Callable[[Path], None]] = {"deleted": _gone, "cut short": _cut, "with half an index": _cut_index}


@pytest.mark.parametrize("running", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "change", ["cut short", *(pytest.param(n, marks=pytest.mark.slow) for n in LOSSES if n != "cut short")]
)
def test_the_pack_is_lost(
    change: str, running: bool, data: Path, forks: Forks, whole: Whole, work: Path, tried: Tried
) -> None:
    """Between two parts of a run, or under a run that has it mapped into memory. It is made anew."""
    begin = _begin("pack", data)
    unbroken = whole(begin)
    child = _paused(forks, work, "@mapped", *begin)
    LOSSES[change](work / "cache" / "packs")
    if running:
        child.signal(signal.SIGCONT)
    else:
        child.signal(signal.SIGKILL)
    stopped = child.wait()
    assert "Traceback" not in stopped.err
    if running and change != "cut short":
        # Files without a name stay as long as somebody has them mapped.
        assert stopped.code == 0, stopped.err
    elif running:
        # What is mapped and cut off is no memory any more: the system kills whoever asks for it.
        assert stopped.code in {0, -signal.SIGBUS}
    last = forks.run(work, "@mapped", *resume())
    assert last.code == 0, last.err
    where = "in mid-run" if running else "between kill and going on"
    tried(f"the pack lost: {change} {where}", work / "run", unbroken, killed=not running)

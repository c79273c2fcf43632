"""A process that forks runs, whole runs to compare with, and `tests.faults` importable however pytest was started."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from tests.faults.harness import Forks, Whole, differences, some_pictures, whole_runs  # noqa: E402


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """A server of children. It forks, and looks at processes and open files as Linux shows them, in /proc."""
    if sys.platform != "linux":
        pytest.skip("runs are killed where there is /proc")
    with Forks() as server:
        yield server


@pytest.fixture(scope="session")
def whole(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """`whole(begin)` is the run that these arguments make when nothing happens to it; made once."""
    return whole_runs(forks, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some pictures in folders of their classes: real photographs where they are, else real digits as files."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    data = os.environ.get("PELLUCID_DATA")
    some_pictures(folder, Path(data) / "flower-photos-small" / "train" if data else None)
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder that a command line runs in."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


Tried = Callable[..., None]


@pytest.fixture
def tried(record_property: Callable[[str, Any], None]) -> Tried:
    """`tried(fault, run, unbroken)` writes down how a run ended that had this fault, and that nothing may differ.

    benchmarks/faults.py makes its table of what is written down here.
    """

    def same(fault: str, run: Path, unbroken: Path, *, resumed: int = 1, killed: bool = True) -> None:
        found = differences(run, unbroken)
        record_property("fault", {"fault": fault, "resumed": resumed, "killed": killed, "lost": bool(found)})
        assert not found, f"after {fault}: {found}"

    return same

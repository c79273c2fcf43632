"""What a reader may do with a file from anywhere: answer, or refuse in a sentence; in little time and memory.

The interpreter's own audit tells what a reader tries: a program started, a connection, a file written, moved or made
outside of the folder it was given.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from pellucid.errors import PellucidError

#: Names the number of inputs that each reader is given; unset, a fixed few.
EXAMPLES = "PELLUCID_FUZZ_EXAMPLES"

#: What one input may take: seconds, and bytes above what the process had mapped before.
SECONDS, MEMORY = 15.0, 2 << 30

_STARTS = {"os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect"}
_CHANGES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod"}
_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass
class Tally:
    inputs: int = 0
    accepted: int = 0
    slowest: float = 0.0


TALLY: dict[str, Tally] = defaultdict(Tally)


class _Watch:
    """Installed once, since an audit cannot be taken away again; looks only while a reader is at work."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in _STARTS:
            self.seen.append(f"{event}{arguments!r:.200}")
        elif event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITE):
            paths = [os.fsdecode(one) for one in arguments if isinstance(one, (str, bytes, os.PathLike))]
            outside = [path for path in (paths[:1] if event == "open" else paths) if not self._inside(path)]
            if outside:
                self.seen.append(f"{event} {outside}")

    def _inside(self, path: str) -> bool:
        folder = self.folder
        assert folder is not None
        return os.path.realpath(path).startswith((folder, os.devnull)) or ("r" in path[:1] and len(path) <= 2)


_WATCH = _Watch()
sys.addaudithook(_WATCH)


def few(count: int) -> settings:
    """So many inputs, always the same; with `PELLUCID_FUZZ_EXAMPLES`, that many new ones."""
    asked = os.environ.get(EXAMPLES)
    return settings(
        max_examples=count if asked is None else int(asked),
        derandomize=asked is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def _memory(more: int) -> Iterator[None]:
    """At most so many more bytes of address space."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def guarded(reader: str, folder: Path, read: Callable[[], Any], *, sane: Callable[[Any], bool] | None = None) -> None:
    """Have `read` read something in `folder`; what it may not do fails the test.

    `sane` judges what was accepted. A MemoryError fails: the limit is far above what the files here take.
    """
    tally = TALLY[reader]
    tally.inputs += 1
    _WATCH.seen.clear()
    _WATCH.folder = os.path.realpath(folder)
    begun = time.process_time()
    try:
        with _memory(MEMORY):
            value = read()
    except PellucidError as error:
        sentence = str(error)
        assert sentence
        assert len(sentence) < 4000
        sentence.encode("utf-8", "surrogateescape")
    else:
        tally.accepted += 1
        assert sane is None or sane(value), f"accepted {value!r:.300}"
        del value
    finally:
        _WATCH.folder = None
    took = time.process_time() - begun
    tally.slowest = max(tally.slowest, took)
    assert not _WATCH.seen, list(_WATCH.seen)
    assert took < SECONDS, f"took {took:.1f} s"
    if tally.inputs % 500 == 0:
        gc.collect()

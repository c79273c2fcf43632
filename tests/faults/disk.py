"""Every operation on files below a folder, counted in the process that makes them, so that any one can be the last.

Installed in a child of the server alone. What Python code changes on a disk goes through functions of `os` or a file
object; both are put in the way of, and an operation on a path below `root` has a number, from 1. At its number a fault
happens: the process dies of a real SIGKILL, or the system refuses, or takes only a part.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.power import Power

#: Functions that change what a path names; the number is how many of the first arguments are paths.
NAMES = {
    "mkdir": 1, "rmdir": 1, "unlink": 1, "remove": 1, "truncate": 1, "rename": 2, "replace": 2, "link": 2, "symlink": 2
}  # fmt: skip

#: Those that need room, and so fail on a full disk from the first failure on.
NEED_ROOM = {"open", "write", "mkdir", "link", "symlink", "ftruncate", "fsync"}


class Disk:
    """Counts operations below `root`, and lets the fault happen. `fault` holds plain values, as it came in JSON.

    kind: "none"; "die", just before operation `at`, or with `half` when half of a write is written; "power", as "die",
    but what had not reached the disk is lost (`power.Power`), and what is left stands in `after`; "refuse", with
    `code`, at operation `at`, which of a write takes half, and with `stays` at all later ones that need room;
    "short", every write takes a part. With `log`, all operations are listed there as JSON lines. `only` are the
    operations that a number is given to.
    """

    def __init__(self, root: str, fault: dict[str, Any]) -> None:
        self.root = os.path.realpath(root)
        self.kind = fault.get("kind", "none")
        self.at, self.half = int(fault.get("at", 0)), bool(fault.get("half"))
        self.code, self.stays = int(fault.get("code", errno.ENOSPC)), bool(fault.get("stays"))
        self.only = set(fault.get("only", ()))
        self.after, self.log = fault.get("after"), fault.get("log")
        self.keep_names = bool(fault.get("keep_names"))
        self.count, self.refused = 0, False
        self.done: list[list[str]] = []
        self.paths: dict[int, str] = {}
        self.lock = threading.RLock()
        self.real = {name: getattr(os, name) for name in [*NAMES, "open", "close", "write", "fsync", "ftruncate"]}
        self.power = Power(self.root, self.real) if self.kind == "power" else None

    def install(self) -> None:
        """Stand between this process and its disk, for good."""
        os.open, os.write = self._open, self._write
        os.close = self._close  # type: ignore[assignment]
        os.fsync = lambda fd: self._on_descriptor("fsync", fd)
        os.ftruncate = lambda fd, size: self._on_descriptor("ftruncate", fd, size)
        for name, paths in NAMES.items():
            setattr(os, name, self._on_path(name, paths))
        builtins.open = io.open = self._file(io.open)

    def finish(self) -> None:
        """Write the list of what was done."""
        if self.log:
            text = "".join(json.dumps(row) + "\n" for row in self.done)
            Path(self.log).write_text(text, encoding="utf-8")

    def _below(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The path, where it is one of those counted."""
        if isinstance(path, int):
            return self.paths.get(path)
        text = os.fsdecode(path)
        if dir_fd is not None:
            text = os.path.join(self.paths.get(dir_fd, "/"), text)  # noqa: PTH118
        text = os.path.join(os.path.realpath(os.path.dirname(text) or "."), os.path.basename(text))  # noqa: PTH118, PTH119, PTH120
        return text if text == self.root or text.startswith(self.root + os.sep) else None

    def _begin(self, name: str, path: str, half: Callable[[], object] | None = None) -> None:
        """One more operation; here the fault happens. `half` does a part of it, where that can be done."""
        if self.only and name not in self.only:
            return
        self.count += 1
        self.done.append([name, os.path.relpath(path, self.root)])
        if self.kind in {"die", "power"} and self.count == self.at:
            if self.half and half is not None:
                half()
            if self.power is not None:
                self.power.lose(Path(str(self.after)), keep_names=self.keep_names)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "refuse":
            again = self.refused and self.stays and name in NEED_ROOM
            if self.count == self.at and half is not None:
                half()
            if self.count == self.at or again:
                self.refused = True
                raise OSError(self.code, os.strerror(self.code), path)

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        below = self._below(path, dir_fd)
        changes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        with self.lock:
            if below is not None and changes:
                self._begin("open", below)
            descriptor: int = self.real["open"](path, flags, mode, dir_fd=dir_fd)
            if below is not None:
                self.paths[descriptor] = below
            else:
                self.paths.pop(descriptor, None)
            return descriptor

    def _close(self, descriptor: int) -> None:
        self.paths.pop(descriptor, None)
        self.real["close"](descriptor)

    def _write(self, descriptor: int, data: Any) -> int:
        view = memoryview(data).cast("B")
        with self.lock:
            if descriptor not in self.paths:
                return int(self.real["write"](descriptor, data))

            def half() -> object:
                return self.real["write"](descriptor, view[: len(view) // 2])

            self._begin("write", self.paths[descriptor], half)
            if self.kind == "short":
                view = view[: max(1, len(view) // 2)]
            return int(self.real["write"](descriptor, view))

    def _on_descriptor(self, name: str, descriptor: Any, *rest: Any) -> Any:
        descriptor = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        with self.lock:
            if descriptor in self.paths:
                self._begin(name, self.paths[descriptor])
            result = self.real[name](descriptor, *rest)
            if descriptor in self.paths and self.power is not None and name == "fsync":
                self.power.synced(descriptor)
            return result

    def _on_path(self, name: str, paths: int) -> Callable[..., Any]:
        def call(*arguments: Any, **settings: Any) -> Any:
            fds = [settings.get("dir_fd", settings.get("src_dir_fd")), settings.get("dst_dir_fd")]
            with self.lock:
                below = [self._below(path, fd) for path, fd in zip(arguments[:paths], fds, strict=False)]
                known = [path for path in below if path is not None]
                if known:
                    self._begin(name, known[-1])
                return self.real[name](*arguments, **settings)

        return call

    def _file(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """`open`, whose files count their writes where they are written to."""

        def call(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **settings: Any) -> Any:
            below = self._below(file)
            if below is None or not set(mode) & set("wax+"):
                return real(file, mode, buffering, *rest, **settings)
            raw = _Counted(self, file, mode.replace("b", "").replace("t", ""))
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, *rest, **settings)

        return call


class _Counted(io.FileIO):
    """A file of Python's own, opened and written through the same door."""

    def __init__(self, disk: Disk, path: Any, mode: str) -> None:
        self._disk = disk
        opener = None if isinstance(path, int) else lambda name, flags: disk._open(name, flags, 0o666)
        super().__init__(path, mode, opener=opener)

    def write(self, data: Any) -> int:
        return self._disk._write(self.fileno(), data)

    def truncate(self, size: int | None = None) -> int:
        length = self.tell() if size is None else size
        self._disk._on_descriptor("ftruncate", self.fileno(), length)
        return length

    def close(self) -> None:
        if not self.closed:
            self._disk.paths.pop(self.fileno(), None)
        super().close()

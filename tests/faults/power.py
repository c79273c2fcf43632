"""What lost power leaves of a folder, by the letter of POSIX.

A file's bytes are on the disk when the file was flushed (fsync), and a name when its folder was flushed after it was
given, changed or taken away. Nothing else is promised. Most file systems keep more; what holds here holds on them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Node:
    """A file or a folder, whatever it is called meanwhile, as far as it has reached the disk."""

    descriptor: int
    """Held open, so that the system does not give its number to another file."""
    is_folder: bool
    data: bytes = b""
    names: dict[str, int] = field(default_factory=dict)
    """Of a folder: the number of the file behind each name."""


class Power:
    """Follows what has reached the disk below `root`; all that is there at the beginning has.

    `real` are the functions of `os` that nobody stands in the way of.
    """

    def __init__(self, root: str, real: dict[str, Callable[..., Any]]) -> None:
        self.root, self.real = Path(root), real
        self.nodes: dict[int, Node] = {}
        for path in [self.root, *self.root.rglob("*")]:
            self._met(path)
        for node in self.nodes.values():
            self._settle(node)

    def synced(self, descriptor: int) -> None:
        """A file or folder reached the disk, as it is now."""
        self._settle(self._met(Path(f"/proc/self/fd/{descriptor}")))

    def lose(self, after: Path, *, keep_names: bool) -> None:
        """Write to `after` what is left.

        That is the names and bytes that were flushed; with `keep_names`, which a file system may well do, the names of
        now, and of bytes that were not flushed some.
        """
        if keep_names:
            self._some(self.root, after)
        else:
            self._restore(self.root.stat().st_ino, after)

    def _met(self, path: Path) -> Node:
        number = path.stat().st_ino
        if number not in self.nodes:
            # New: nothing of it has reached the disk.
            self.nodes[number] = Node(self.real["open"](path, os.O_RDONLY), path.is_dir())
        return self.nodes[number]

    def _settle(self, node: Node) -> None:
        place = Path(f"/proc/self/fd/{node.descriptor}")
        if node.is_folder:
            for child in place.iterdir():
                self._met(child)
            node.names = {child.name: child.stat().st_ino for child in place.iterdir()}
        else:
            node.data = place.read_bytes()

    def _restore(self, number: int, to: Path) -> None:
        node = self.nodes[number]
        if not node.is_folder:
            self._put(to, node.data)
            return
        self.real["mkdir"](to)
        for name, child in node.names.items():
            self._restore(child, to / name)

    def _some(self, path: Path, to: Path) -> None:
        if path.is_dir():
            self.real["mkdir"](to)
            for child in path.iterdir():
                self._some(child, to / child.name)
            return
        node, now = self.nodes.get(path.stat().st_ino), path.read_bytes()
        flushed = b"" if node is None else node.data
        self._put(to, now if now == flushed else flushed or now[: len(now) // 2])

    def _put(self, to: Path, data: bytes) -> None:
        descriptor = self.real["open"](to, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        while data:
            data = data[self.real["write"](descriptor, data) :]
        self.real["close"](descriptor)

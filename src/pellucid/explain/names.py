"""Names for the values of an exported graph, from the modules that were being called when each was computed.

In a module that calls no other (a leaf), the last value that leaves it has the module's path: `conv1`. Other values
have the path and their operation's name, `layer1.0.add`, in the network itself the operation's name alone, `cat`. A
name that is taken gets a number: a module called twice gives `relu` and `relu@2`.

>>> root, conv, relu, again = ("", ""), ("conv", "conv"), ("relu", "relu"), ("relu@1", "relu")
>>> calls = [Call((root, conv), "conv2d", (1,)), Call((root, relu), "relu", (2,)),
...          Call((root,), "add", (3,)), Call((root, again), "relu", (4,))]
>>> name_calls(calls, set())
['conv', 'relu', 'add', 'relu@2']
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Stack = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Call:
    """An operation that was called: inside which modules, its name, and by which operations (by position) it is read.

    `stack` holds (key of the call, path of the module) from the network inwards; a module's second call has another
    key. A position past the end stands for the pass's output.
    """

    stack: Stack
    op: str
    readers: tuple[int, ...]


def stack_of(meta: Mapping[str, Any], root: str = "", without: str = "") -> Stack:
    """The modules under call when a node of an exported graph was made, outermost first.

    Paths are put below `root`, and lose a first part that is `without`.
    """
    stack = [(str(key), str(path)) for key, (path, _) in (meta.get("nn_module_stack") or {}).items()]
    if not stack or stack[0][1]:
        stack.insert(0, ("", ""))
    parts = [(key, path.split(".")) for key, path in stack]
    return tuple((key, joined(root, ".".join(path[path[0] == without :]))) for key, path in parts)


def joined(root: str, path: str) -> str:
    """`path` below `root`, either of which may be empty."""
    return f"{root}.{path}" if root and path else root or path


def source_of(meta: Mapping[str, Any], libraries: tuple[str, ...]) -> str:
    """The line of the user's program that made a node, "model.py:12: x = self.conv1(x)"; "" where none is known.

    It is the innermost frame of the recorded trace that does not lie in the folders `libraries`.
    """
    frames = re.findall(r'File "(.*?)", line (\d+), in .*\n\s*(.*)', meta.get("stack_trace") or "")
    for file, line, code in reversed(frames):
        # A name in angle brackets is no file: code that torch wrote itself.
        if not file.startswith((*libraries, "<")):
            return f"{Path(file).name}:{line}: {code.strip()}"
    return ""


def short(target: str) -> str:
    """The name of an operation without its namespace, overload and the marks of its variants.

    >>> [short("aten.add_.Tensor"), short("aten._native_batch_norm_legit.no_stats"), short("aten._to_copy.default")]
    ['add', 'batch_norm', 'to_copy']
    """
    name = target.split(".")[1] if "." in target else target
    name = name.strip("_").removeprefix("native_").removesuffix("_functional").removesuffix("_no_training")
    return name.removesuffix("_legit")


def unique(name: str, taken: set[str]) -> str:
    """`name`, or the first of `name@2`, `name@3`, … that is free; it is taken from then on."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}@{number}"
    taken.add(free)
    return free


def name_calls(calls: Sequence[Call], taken: set[str]) -> list[str]:
    """A name for each call, in order, none of them in `taken`, to which they are added."""
    finals = _finals(calls)
    names = []
    for position, call in enumerate(calls):
        key, path = call.stack[-1]
        name = path if finals.get(key) == position and path else joined(path, call.op)
        names.append(unique(name, taken))
    return names


def container_aliases(calls: Sequence[Call], names: Sequence[str], taken: Iterable[str]) -> dict[str, str]:
    """For each module whose call gives one value away, its path ("layer1.0") and that value's name.

    A name of a node is never an alias; a module's second call has the alias "layer1.0@2".
    """
    leaving: dict[str, list[int]] = {}
    paths: dict[str, str] = {}
    for position, call in enumerate(calls):
        for key, path in call.stack[1:]:
            paths.setdefault(key, path)
            if _leaves(call, key, calls):
                leaving.setdefault(key, []).append(position)
    nodes, numbered, aliases = set(taken) | set(names), set[str](), {}
    for key, path in paths.items():
        alias = unique(path, numbered)
        if len(leaving.get(key, [])) == 1 and alias not in nodes:
            aliases[alias] = names[leaving[key][0]]
    return aliases


def _finals(calls: Sequence[Call]) -> dict[str, int]:
    """For each call of a leaf module, the position of the value that takes its path."""
    inner = {call.stack[-1][0] for call in calls} - {key for call in calls for key, _ in call.stack[:-1]}
    finals: dict[str, int] = {}
    for position, call in enumerate(calls):
        key = call.stack[-1][0]
        if key in inner and len(call.stack) > 1:
            before = finals.get(key)
            # A counter that nobody reads (of a batch normalisation) may stand last, and is not what the module gives.
            if before is None or _leaves(call, key, calls) or not _leaves(calls[before], key, calls):
                finals[key] = position
    return finals


def _leaves(call: Call, key: str, calls: Sequence[Call]) -> bool:
    """Whether a value is read outside the call `key`."""
    return any(reader >= len(calls) or all(other != key for other, _ in calls[reader].stack) for reader in call.readers)

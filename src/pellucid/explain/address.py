"""Addresses: the name of one number of a pass, such as `conv1.weight.grad[3,0,1,1]`.

An address is the name of a node, or of a container's output, then what is meant of it, then an index:

    conv1[0,3,10,12]              a value
    conv1[3,10,12]                the same: one index fewer than dimensions means image 0
    conv1.grad[…]                 ∂L/∂value
    conv1.weight.next[…]          a parameter after the optimiser's step
    conv1.weight.state.velocity[…]  what the optimiser remembered of it before that step
    input.raw[…]                  a pixel before preprocessing, 0 to 255

Without brackets it is the whole array. A node whose own name ends in one of these words wins.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pellucid.errors import UsageError, did_you_mean
from pellucid.explain.node import Array, Index, Node

if TYPE_CHECKING:
    from pellucid.explain.tape import Tape

#: How many names an error lists where none is near.
_LISTED = 20

_INDEX = re.compile(r"(?P<name>[^\[\]]*)(?P<index>\[[^\[\]]*\])?", re.DOTALL)
_NUMBERS = re.compile(r"\[\s*(?:[0-9]{1,18}\s*(?:,\s*[0-9]{1,18}\s*)*)?\]")
_STATE = re.compile(r"(?P<name>.+)\.(?P<what>state\.[^.]+)", re.DOTALL)
_PLAIN = re.compile(r"(?P<name>.+)\.(?P<what>grad|next|raw)", re.DOTALL)


@dataclass(frozen=True)
class Address:
    """A node, what of it is meant ("" its value, "grad", "next", "state.velocity", "raw"), and which number, if one."""

    node: str
    what: str = ""
    index: Index | None = None

    @property
    def array(self) -> str:
        """The address without its index."""
        return f"{self.node}.{self.what}" if self.what else self.node

    def __str__(self) -> str:
        return self.array if self.index is None else spelled(self.array, self.index)


def spelled(array: str, index: Index | list[int]) -> str:
    """The address of one number of an array; a single number has no index."""
    return f"{array}[{','.join(map(str, index))}]" if len(index) else array


def find(tape: Tape, text: str) -> Address:
    """The address in a text, complete: the node's own name, and every index where there are any.

    Raises UsageError for a name that the tape does not have, for one that has no such array (a gradient of what the
    loss does not depend on), and for an index that is none or is out of range.
    """
    name, what, brackets = _split(tape, text.strip())
    node = tape.node(name)
    address = Address(node.name, what)
    array = array_at(tape, address)
    if not brackets:
        return Address(node.name, what, () if array.ndim == 0 else None)
    if not _NUMBERS.fullmatch(brackets):
        raise UsageError(f"{text}: {brackets} is no index: write whole numbers from 0, such as {_example(array)}")
    index = tuple(int(word) for word in brackets.strip("[] ").split(",")) if brackets.strip("[] ") else ()
    if len(index) == array.ndim - 1 and _is_of_images(tape, node):
        index = (0, *index)
    if len(index) != array.ndim:
        raise UsageError(
            f"{text}: {address.array} has shape {array.shape}, which takes {array.ndim} "
            f"{'index' if array.ndim == 1 else 'indices'}, not {len(index)}: write {address.array}{_example(array)}"
        )
    if any(i >= size for i, size in zip(index, array.shape, strict=True)):
        raise UsageError(
            f"{text}: {list(index)} is out of range for {address.array} of shape {array.shape}: each index runs from "
            "0 to one less than the size of its axis"
        )
    return Address(node.name, what, index)


def array_at(tape: Tape, address: Address) -> Array:
    """The whole array an address means; its index plays no part. Raises UsageError where the tape has none."""
    name, what = address.node, address.what
    if not what:
        return tape.values[name]
    if what == "grad":
        return _gradient(tape, name)
    if what == "next":
        return _after(tape, name)
    if what == "raw":
        if tape.pixels is None or not tape.inputs or name != tape.inputs[0]:
            raise UsageError(f"{name}.raw: the tape has no pixels of {name} from before preprocessing: read {name}")
        return tape.pixels.values
    _after(tape, name)
    assert tape.update is not None
    step, wanted = tape.update.parameters.get(name), what.removeprefix("state.")
    if step is None:
        raise UsageError(f"{name}.{what}: the step left {name} as it was, and nothing is remembered of it: ask {name}")
    if wanted not in step.state:
        known = did_you_mean(wanted, step.state) if step.state else f"{step.rule} remembers nothing"
        raise UsageError(f"{name}.{what}: the optimiser remembers no {wanted!r} of {name}: {known}")
    return step.state[wanted]


def unknown(tape: Tape, name: str) -> UsageError:
    """The error for a name that no node has."""
    known = [*(node.name for node in tape.nodes), *tape.aliases]
    hint = did_you_mean(name, known)
    base, _, last = name.rpartition(".")
    near = difflib.get_close_matches(last, ("grad", "next", "state", "raw"), n=1, cutoff=0.5)
    if base in known and near:
        hint = f"did you mean '{base}.{near[0]}'?"
    if len(known) > _LISTED and not hint.startswith("did you mean"):
        hint = f"tape.nodes has the names of all {len(tape.nodes)}, such as {', '.join(known[-3:])}"
    return UsageError(f"{name}: the tape has no value of that name: {hint}")


def _split(tape: Tape, text: str) -> tuple[str, str, str]:
    """The node's name (or alias), what is meant of it, and the brackets."""
    known = {*(node.name for node in tape.nodes), *tape.aliases}
    if text in known:
        return text, "", ""
    parts = _INDEX.fullmatch(text)
    if parts is None:
        raise UsageError(f"{text}: is no address: write a name and one pair of brackets, such as conv1[3,10,12]")
    name, brackets = parts["name"].strip(), parts["index"] or ""
    if name in known:
        return name, "", brackets
    suffixed = _STATE.fullmatch(name) or _PLAIN.fullmatch(name)
    if suffixed is None:
        raise unknown(tape, name)
    if suffixed["name"] not in known:
        raise unknown(tape, suffixed["name"])
    return suffixed["name"], suffixed["what"], brackets


def _gradient(tape: Tape, name: str) -> Array:
    if tape.loss is None:
        raise UsageError(f"{name}.grad: the tape has no loss, so nothing has a gradient: record with a label or a loss")
    if name == tape.loss:
        return tape.gradients.get(name, np.ones(()))
    if name not in tape.gradients:
        raise UsageError(
            f"{name}.grad: the loss does not depend on {name} in a way that has a slope: ask another value"
        )
    return tape.gradients[name]


def _after(tape: Tape, name: str) -> Array:
    if tape.update is None:
        raise UsageError(f"{name}: the tape has no step of an optimiser: record with an optimiser")
    if name not in tape.after:
        raise UsageError(
            f"{name}: the optimiser's step is on parameters, and {name} is none: "
            f"it has {', '.join(list(tape.after)[:3]) or 'no'}…"
        )
    return tape.after[name]


def _is_of_images(tape: Tape, node: Node) -> bool:
    """Whether the first axis counts images: not of a parameter, nor of a recurrent network's last states (L, N, H)."""
    if node.op in {"parameter", "buffer", "constant"} or str(node.attributes.get("output", "")).endswith("_n"):
        return False
    if not tape.inputs or not node.shape:
        return False
    shape = tape.node(tape.inputs[0]).shape
    return bool(shape) and node.shape[0] == shape[0]


def _example(array: Array) -> str:
    return f"[{','.join('0' * array.ndim)}]"

"""What a tape is made of: nodes, the step of the optimiser, and the pictures as they were before preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pellucid.textbook import OPERATIONS, Operation

Array = npt.NDArray[Any]
Index = tuple[int, ...]

#: What a node can be that no operation computes.
LEAVES = ("input", "parameter", "buffer", "constant")

#: Attributes that say where a value stands in its operation, and are no settings of it.
RESERVED = ("output", "of", "recomputed")

#: A rounding error is at most this share of a rule's own scale, by the precision that the engine computed in.
BOUNDS: Mapping[str, float] = {"float32": 1e-4, "float64": 1e-4, "bfloat16": 8e-3, "float16": 1e-3}

#: torch.nn.utils.clip_grad_norm_ adds this to the norm.
CLIP_EPS = 1e-6


@dataclass(frozen=True)
class Node:
    """One array of a pass, and how it came about.

    `op` is "input", "parameter", "buffer", "constant", "loss", a name of `textbook.OPERATIONS`, or, where there is no
    rule, that of the engine's operation ("aten.cumsum.default"). `inputs` are names of nodes in the order of the
    operation's arguments, None where an optional one was left out. `attributes` are its settings, JSON values only,
    and three keys of their own: `output` says which output of the operation this is, `of` names the node of the first
    output, where this is another, and `recomputed` says that the value was computed beside the pass (a gate of a
    recurrent network, which the engine does not give). A loss has its operation's name under "operation".
    `module` is the path of the module that was called, `source` the line of the user's program.
    """

    name: str
    op: str
    inputs: tuple[str | None, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    module: str = ""
    source: str = ""

    @property
    def first(self) -> str:
        """The name of the node of the operation's first output: itself, unless this is another output of it."""
        return str(self.attributes.get("of", self.name))

    @property
    def is_primary(self) -> bool:
        """Whether this node stands for its operation; the other outputs and the interior do not."""
        return "of" not in self.attributes


def operation_of(node: Node) -> tuple[Operation, dict[str, Any]] | None:
    """The textbook's operation that made this node, and its settings; None for leaves and where there is no rule."""
    settings = {name: value for name, value in node.attributes.items() if name not in RESERVED}
    name = settings.pop("operation", "") if node.op == "loss" else node.op
    operation = OPERATIONS.get(name) if isinstance(name, str) else None
    return None if operation is None else (operation, settings)


@dataclass(frozen=True, eq=False)
class Step:
    """What the optimiser does to one parameter: its rule (a name of `textbook.OPTIMISERS`, else the engine's own).

    `hyper` are the rule's settings by the textbook's names, `state` what it remembered before this step (zeros before
    the first), by the textbook's names, and `step` the number of this step, from 1.
    """

    rule: str
    hyper: Mapping[str, float]
    state: Mapping[str, Array]
    step: int


@dataclass(frozen=True)
class Clipping:
    """How gradients were clipped before the step: `kind` is "norm" or "value".

    `norm` is the engine's norm of all gradients together, before clipping; None when clipping by value.
    """

    kind: str
    limit: float
    norm: float | None = None

    @property
    def factor(self) -> float:
        """What clipping by norm multiplies every gradient with; 1 when clipping by value."""
        return 1.0 if self.norm is None else min(1.0, self.limit / (self.norm + CLIP_EPS))


@dataclass(frozen=True, eq=False)
class Update:
    """One step of an optimiser: what it does to each parameter (by node name), and the clipping before it, if any.

    `Tape.gradients` holds the gradients before clipping.
    """

    parameters: Mapping[str, Step]
    clipping: Clipping | None = None


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pictures as they were: uint8 NCHW, beside the input (pixel/255 − mean)/std; one mean and std a channel."""

    values: Array
    mean: tuple[float, ...]
    std: tuple[float, ...]


def number(array: Array, index: Index) -> float:
    """One number of an array, as a Python float."""
    return float(np.asarray(array)[index])

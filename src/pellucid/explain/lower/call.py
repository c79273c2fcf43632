"""One call of the engine, as the tables of rules see it, and the textbook call it becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]

#: Types with a fraction; a cast between them is a rounding and nothing else.
FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Ref:
    """A tensor of the engine's call: the name of its node, its shape and its type ("float32")."""

    name: str
    shape: Shape
    dtype: str


@dataclass(frozen=True)
class Lowered:
    """A call of the textbook: `op` of `textbook.OPERATIONS`, its arrays in order, and its settings.

    In `inputs` a Ref is that node, None an argument left out, and a plain number an array of no axes that has yet to be
    made. `output` names the output that is meant, of an operation that has several.
    """

    op: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any]
    output: str | None = None


@dataclass(frozen=True)
class Call:
    """The arguments of an ATen call by the names of its schema, defaults included, and the shape of each tensor."""

    arguments: Mapping[str, Any]
    shape_of: Callable[[Any], Shape]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument that only some overloads of an operation have."""
        return self.arguments.get(name, default)

    def shape(self, name: str) -> Shape:
        """The shape of the tensor given as `name`."""
        return tuple(int(size) for size in self.shape_of(self.arguments[name]))

    def axis(self, name: str = "dim", of: str = "self", extra: int = 0) -> int:
        """The axis given as `name`, counted from the front; `extra` axes are added to the tensor (a stack)."""
        return from_front(self.arguments[name], len(self.shape(of)) + extra)


Rule = Callable[[Call], Lowered | None]
Rules = dict[str, Rule]


def from_front(axis: int, rank: int) -> int:
    """An axis counted from the front: −1 is the last."""
    return int(axis) % rank if rank else 0


def repeated(value: Any, count: int) -> tuple[int, ...]:
    """A setting of `count` axes: the engine lets one number, alone or in a list, stand for all."""
    numbers = (value,) if isinstance(value, int) else tuple(value)
    return tuple(int(v) for v in numbers) * (count if len(numbers) == 1 else 1)


def is_float(tensor: Any) -> bool:
    """Whether a tensor's numbers have a fraction."""
    return isinstance(tensor, Ref) and tensor.dtype.removeprefix("torch.") in FLOATS


def keeps_type(call: Call, name: str = "dtype") -> bool:
    """Whether the call leaves the type of its result to its tensor."""
    return call.get(name) is None

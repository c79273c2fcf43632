"""What was exported before: kept by model, as long as the model lives and nothing that the graph depends on changes.

torch is not imported: modules and tensors are used by what they have.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.explain.graph import Program

#: What was exported, by model; a model that is gone takes its entries with it.
PROGRAMS: weakref.WeakKeyDictionary[Any, dict[Any, Program]] = weakref.WeakKeyDictionary()

_TENSORS = ("_parameters", "_buffers", "_modules")


def forget(model: Any = None) -> int:
    """Drop what was exported of a model, or of all: the next recording exports anew. How many graphs were dropped.

    A change to a model's structure, settings, modes or hooks is noticed without this; a change to what its code reads
    from elsewhere (a global, a closure) is not.
    """
    kept = [model] if model is not None else list(PROGRAMS)
    return sum(len(PROGRAMS.pop(one, {})) for one in kept)


def fingerprint(model: Any, arguments: Sequence[Any]) -> Any:
    """All that an exported graph depends on, but for what the model's code reads from elsewhere."""
    settings = tuple(
        (name, type(module), _frozen({k: v for k, v in vars(module).items() if k not in _TENSORS}))
        for name, module in model.named_modules(remove_duplicate=False)
    )
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    weights = tuple((name, t.shape, t.dtype, t.device, t.requires_grad) for name, t in named)
    images = tuple((t.shape, t.stride(), t.dtype, t.device) for t in arguments)
    return settings, weights, images


def _frozen(value: Any) -> Any:
    if isinstance(value, (int, float, str, bytes, type(None))):
        return type(value), value
    if isinstance(value, Mapping):
        return type(value), tuple((_frozen(k), _frozen(v)) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(_frozen, value))
    return _Same(value() if isinstance(value, weakref.ReferenceType) else value)


class _Same:
    """Equal to another for the same object alone, which it does not keep alive; an address may be used again."""

    def __init__(self, value: Any) -> None:
        self.hash = id(value)
        self.value: Any
        try:
            self.value = weakref.ref(value)
        except TypeError:
            self.value = lambda: value

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value() is not None and self.value() is other.value()

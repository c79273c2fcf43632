"""Pellucid: train image recognisers fast on your own pictures, and see every number they compute.

The public names are loaded when first used, so that `import pellucid` (and `pellucid --help`) does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid import data, draw, nets
    from pellucid.bundle import Recogniser, evaluate, load, verify
    from pellucid.errors import PellucidError
    from pellucid.explain.record import record
    from pellucid.recipe import Recipe
    from pellucid.training import Run, train

__version__ = "0.1.0"

#: Public name -> the module it is in; a room stands for itself.
_HOMES = {
    "PellucidError": "pellucid.errors",
    "Recipe": "pellucid.recipe",
    "Recogniser": "pellucid.bundle",
    "Run": "pellucid.training",
    "data": "pellucid.data",
    "draw": "pellucid.draw",
    "evaluate": "pellucid.bundle",
    "load": "pellucid.bundle",
    "nets": "pellucid.nets",
    "record": "pellucid.explain.record",
    "train": "pellucid.training",
    "verify": "pellucid.bundle",
}

__all__ = [
    "PellucidError",
    "Recipe",
    "Recogniser",
    "Run",
    "data",
    "draw",
    "evaluate",
    "load",
    "nets",
    "record",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pellucid' has no attribute {name!r}; public names: {', '.join(__all__)}")
    module = importlib.import_module(_HOMES[name])
    value = module if _HOMES[name] == f"pellucid.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

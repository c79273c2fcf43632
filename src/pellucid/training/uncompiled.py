"""Torch's optimisers without torch's compiler, which the first of them would import: a second or two of every run.

They name it to keep it off what they do. Nothing here is ever compiled, so there is nothing to be kept off.
"""

from __future__ import annotations

import inspect
import sys
from typing import TypeVar, cast

import torch

# What torch has made of a method that its compiler is to leave alone; without it, it imports the compiler to make it.
_MARK = "__dynamo_disable"

Rule = TypeVar("Rule", bound=torch.optim.Optimizer)


def plain(kind: type[Rule]) -> type[Rule]:
    """One of torch's rules, with the same step; only that it does not break a compiler's graph before and behind it."""
    step = torch.no_grad()(inspect.unwrap(kind.step))
    made = type(kind.__name__, (kind,), {"__module__": __name__, "step": step, "textbook_rule": kind.__name__})
    return cast("type[Rule]", made)


def leave_the_compiler_out() -> None:
    """Let the other methods of optimisers do without the compiler, unless it is there already.

    A release of torch without such marks imports what it likes.
    """
    if "torch._dynamo" in sys.modules:
        return
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        method = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if method is not None and not hasattr(method, _MARK):
            setattr(method, _MARK, method)

from __future__ import annotations

import inspect

import numpy as np
import pytest

from pellucid.textbook import OPERATIONS, Operation


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_the_description_matches_the_functions(operation: Operation) -> None:
    """Attributes have the defaults that forward has, and the arguments stand in forward's order."""
    assert operation.summary
    assert operation.arguments
    parameters = inspect.signature(operation.forward).parameters
    for attribute in operation.attributes:
        if attribute.name in parameters and parameters[attribute.name].default is not inspect.Parameter.empty:
            assert parameters[attribute.name].default == attribute.default, attribute.name
    if not operation.variadic and not any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
        positional = [name.split("_")[0] for name in parameters if name not in {a.name for a in operation.attributes}]
        for argument, name in zip(operation.arguments, positional, strict=False):
            assert name.startswith(argument.name.split("_")[0]), (argument.name, name)


def test_names_of_arguments() -> None:
    assert OPERATIONS["convolution"].argument_names(3) == ("x", "w", "b")
    assert OPERATIONS["concatenate"].argument_names(3) == ("x0", "x1", "x2")
    assert OPERATIONS["lstm"].argument_names(11)[-4:] == ("w_xh_l1", "w_hh_l1", "b_l1", "b_hh_l1")
    assert OPERATIONS["concatenate"].variadic
    with pytest.raises(ValueError, match=r"linear was given 4 arrays, but takes 3 \(x, w, b\)"):
        OPERATIONS["linear"].argument_names(4)
    with pytest.raises(ValueError, match="lstm was given 6 arrays, but takes x, h0, c0, w_xh_l0"):
        OPERATIONS["lstm"].argument_names(6)


def test_outputs_by_name() -> None:
    y = np.zeros(2)
    assert list(OPERATIONS["relu"].by_name(y)) == ["y"]
    assert OPERATIONS["lstm_cell"].by_name({"h": y, "c": y}).keys() == {"h", "c"}

"""Why a value is what it is: the textbook's terms of the operation that made it, under the names the tape has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import DataError, PellucidError, UsageError
from pellucid.explain import gradient, update
from pellucid.explain.address import Address, array_at, find, spelled
from pellucid.explain.explanation import Explanation
from pellucid.explain.node import LEAVES, Index, Node, number, operation_of
from pellucid.explain.rules import arrays_of, boundary, names_of, no_rule, opened, output_of, sequences
from pellucid.textbook import Group, Terms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pellucid.explain.tape import Tape

_GIVEN = {
    "input": "an input, given",
    "parameter": "a parameter, given",
    "buffer": "a buffer, given",
    "constant": "a constant, given",
}


def answer(tape: Tape, text: str) -> Explanation:
    """The explanation of the number at an address; see `Tape.why`."""
    address = find(tape, text)
    if address.index is None:
        shape = array_at(tape, address).shape
        example = spelled(address.array, (0,) * len(shape))
        raise UsageError(f"{text}: is an array of shape {shape}: ask for one of its numbers, such as {example}")
    try:
        # What is not finite is said in the explanation.
        with np.errstate(all="ignore"):
            return _of(tape, address, address.index)
    except PellucidError:
        raise
    except (ArithmeticError, ValueError, TypeError, LookupError, AttributeError, MemoryError) as error:
        node = tape.node(address.node)
        raise DataError(
            f"{address}: the rule of {node.op} does not fit what the tape has of {node.name} "
            f"({type(error).__name__}: {error!s:.200}): record the pass again"
        ) from error


def _of(tape: Tape, address: Address, index: Index) -> Explanation:
    node = tape.node(address.node)
    if address.what == "grad":
        return gradient.explained(tape, node, index)
    if address.what == "next":
        return update.explained(tape, node, index)
    if address.what == "raw":
        return _given(tape, address, index, node, "a pixel of the picture, 0 to 255, given")
    if address.what:
        return _given(tape, address, index, node, "what the optimiser remembered from the steps before, given")
    if node.op == "input" and tape.pixels is not None and node.name == tape.inputs[0]:
        return _preprocessed(tape, node, index)
    if node.op in LEAVES:
        return _given(tape, address, index, node, _GIVEN[node.op])
    return _computed(tape, node, index)


def _given(tape: Tape, address: Address, index: Index, node: Node, words: str) -> Explanation:
    """Nothing in the pass made this number; where it goes is told by its gradient and by the optimiser's step."""
    details = []
    if not address.what:
        for what in ("grad", "next"):
            if node.name in (tape.gradients if what == "grad" else tape.after):
                further = spelled(f"{node.name}.{what}", index)
                details.append(f"{'its gradient' if what == 'grad' else 'after the step'}: {further}")
    value = number(array_at(tape, address), index)
    return Explanation(str(address), node.op, None, {}, value, tape.precision, words, tuple(details))


def _preprocessed(tape: Tape, node: Node, index: Index) -> Explanation:
    """(raw/255 − mean)/std, from the pixel as it was."""
    pixels = tape.pixels
    assert pixels is not None
    mean, std = pixels.mean[index[1]], pixels.std[index[1]]
    raw = number(pixels.values, index)
    at = np.asarray(index, dtype=np.int64).reshape(1, -1)
    group = Group("raw", at, np.array([raw]), np.array([1 / (255 * std)]))
    made = Terms(
        (group,),
        "({raw}/255 − {mean})/{std}",
        (raw / 255 + abs(mean)) / std,
        "formula",
        _preprocessing,
        {"mean": mean, "std": std},
    )
    return Explanation(
        spelled(node.name, index),
        "input",
        made,
        {"raw": f"{node.name}.raw"},
        number(tape.values[node.name], index),
        tape.precision,
    )


def _preprocessing(groups: Mapping[str, Group], constants: Mapping[str, Any]) -> dict[str, float]:
    raw, mean, std = float(groups["raw"].value[0]), float(constants["mean"]), float(constants["std"])
    return {"raw": raw, "mean": mean, "std": std, "y": (raw / 255 - mean) / std}


def _computed(tape: Tape, node: Node, index: Index) -> Explanation:
    """The terms of the operation that made it."""
    known = operation_of(node)
    if known is None:
        raise no_rule(node, spelled(node.name, index))
    operation, settings = known
    made: dict[str, Any] = dict(settings)
    output = output_of(node, operation)
    if len(operation.outputs) > 1 or output not in operation.outputs:
        made["output"] = output
    inside = opened(tape, node, operation)
    if inside is not None:
        made["kept"] = inside.kept
    terms = operation.terms(index, *arrays_of(tape, node), **made)
    details: tuple[str, ...] = ()
    names = names_of(tape, node, operation, terms)
    if node.attributes.get("recomputed"):
        details = ("recomputed beside the pass: the engine keeps no such value",)
    else:
        terms = replace(terms, scale=terms.scale + boundary(tape, node, operation, terms, names))
    return Explanation(
        spelled(node.name, index),
        operation.name,
        terms,
        names,
        number(tape.values[node.name], index),
        tape.precision,
        details=details,
        sequences=sequences(tape, names.values()),
    )

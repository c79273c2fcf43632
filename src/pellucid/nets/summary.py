"""What a network is made of: each layer's output shape, the size formula with its numbers, and its parameters."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.parameter import UninitializedParameter

from pellucid.nets.describe import describe, size_formula
from pellucid.nets.plan import whole_image
from pellucid.nets.shapes import explain
from pellucid.nets.sizes import Shape, ShapeError, by
from pellucid.nets.watch import Watched, watch

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Row:
    """One layer: its name, what it is, the shape after it without the batch axis, and its own parameters."""

    name: str
    layer: str
    output: Shape | None
    """None for a module that the pass did not call, and for one that gives no tensor."""
    formula: str
    """The size formula filled in, for what has a window; else empty."""
    parameters: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The layers of a network in the order in which they are called. `str` writes them as a table."""

    rows: tuple[Row, ...]
    parameters: int
    """All parameters; one that two layers share counts once."""
    first_layer_as_fc: str
    """What a fully connected layer in place of the first convolution would cost; empty where there is none."""

    def __str__(self) -> str:
        table = [("name", "layer", "output", "size", "parameters")]
        table += [
            (row.name, row.layer, by(row.output) if row.output else "—", row.formula, f"{row.parameters:,}")
            for row in self.rows
        ]
        widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
        lines = [
            "  ".join(
                cell.rjust(width) if column == len(widths) - 1 else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in table
        ]
        lines.insert(1, "  ".join("─" * width for width in widths))
        lines += ["", f"{self.parameters:,} parameters"]
        return "\n".join([*lines, self.first_layer_as_fc] if self.first_layer_as_fc else lines)


def summary(model: nn.Module, image: Shape) -> Summary:
    """The layers of `model` for an image (C, H, W).

    One pass is run, on a batch of two; the model is left as it was. Raises ShapeError, with the explanation, where the
    model does not take such images.
    """
    watched = watch(model, whole_image(image))
    if watched.error is not None:
        raise ShapeError(explain(watched)) from watched.error
    return Summary(
        rows=_rows(watched),
        parameters=_count(watched.model.parameters(), set()),
        first_layer_as_fc=_first_layer_as_fc(watched),
    )


def _rows(watched: Watched) -> tuple[Row, ...]:
    rows, counted = [], set[int]()
    times: Counter[str] = Counter()
    for call in watched.calls:
        own = list(call.module.parameters(recurse=False))
        if not own and any(True for _ in call.module.children()):
            continue
        times[call.name] += 1
        name = call.name or type(call.module).__name__
        name = name if times[call.name] == 1 else f"{name}@{times[call.name]}"
        output = None if call.output is None else call.output[1:]
        rows.append(Row(name, describe(call.module), output, size_formula(call), _count(own, counted)))
    for name, module in watched.model.named_modules():
        own = list(module.parameters(recurse=False))
        if own and not times[name]:
            rows.append(Row(name, describe(module), None, "", _count(own, counted)))
    return tuple(rows)


def _count(weights: Iterable[nn.Parameter], counted: set[int]) -> int:
    # What is still lazy after a pass was never called, and has no size yet.
    fresh = [
        weight for weight in weights if id(weight) not in counted and not isinstance(weight, UninitializedParameter)
    ]
    counted.update(map(id, fresh))
    return sum(weight.numel() for weight in fresh)


def _first_layer_as_fc(watched: Watched) -> str:
    call = next((call for call in watched.calls if list(call.module.parameters(recurse=False))), None)
    if call is None or not isinstance(call.module, nn.Conv2d) or not call.input or not call.output:
        return ""
    before, after = call.input[1:], call.output[1:]
    numbers, units = math.prod(before), math.prod(after)
    bias = call.module.bias is not None
    inputs = f"({numbers:,} + 1)" if bias else f"{numbers:,}"
    cost = (numbers + bias) * units
    has = sum(weight.numel() for weight in call.module.parameters(recurse=False))
    return (
        f"A fully connected layer in place of {call.name or 'the first layer'}, from {_dots(before)} = {numbers:,} "
        f"numbers to {_dots(after)} = {units:,}, would have {inputs}·{units:,} = {cost:,} parameters "
        f"instead of {has:,}."
    )


def _dots(shape: Shape) -> str:
    return "·".join(str(n) for n in shape)

"""Explanations on the terminal: a patch, a kernel and their products as small grids, then the sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from pellucid.explain import Explanation, Tape
from pellucid.explain.address import find
from pellucid.explain.node import LEAVES, Node
from pellucid.explain.patches import Patch, others, patches
from pellucid.explain.path import Path

if TYPE_CHECKING:
    from pellucid.app.explain import Asked

#: Patches drawn whole; what the others add is summed.
PATCHES = 3
#: Terms listed; the rest is summed.
TERMS = 8


def print_explanation(out: Console, explanation: Explanation) -> None:
    """One number: its formula, the terms as they lie in their array, the largest of them, the sum and the check."""
    out.print(Text(f"{explanation.address} = {explanation.value:.7g}", style="bold"), soft_wrap=True)
    out.print(f"  {explanation.op}: {explanation.formula}", soft_wrap=True)
    out.print(f"  {explanation.numbers}", soft_wrap=True)
    for line in explanation.details:
        out.print(f"  {line}", soft_wrap=True)
    shown = patches(explanation)[:PATCHES]
    for patch in shown:
        out.print("")
        _print_grids(out, patch)
    if shown:
        out.print("")
        _print_rows(out, sum_rows(explanation, shown), "lr", indent="  ")
    if any(map(len, explanation.parts)):
        out.print("")
        heading = ("largest terms", "value", "× coefficient", "= contribution", "share")
        _print_rows(out, [heading, *term_rows(explanation)], "lrrrr", indent="  ")
    if explanation.nonfinite:
        out.print(f"  not finite: {', '.join(explanation.nonfinite[:TERMS])}", soft_wrap=True)
    if explanation.made is not None:
        out.print("")
        out.print(f"  {check(explanation)}", soft_wrap=True)


def check(explanation: Explanation) -> str:
    """How the number recomputed compares with the engine's."""
    return (
        f"recomputed {explanation.value:.9g}, the engine has {explanation.engine_value:.9g}: residual "
        f"{explanation.residual:.2g}, {explanation.relative:.1g} of the scale {explanation.scale:.3g} "
        f"(at most {explanation.bound:g})"
    )


def print_overview(out: Console, asked: Asked) -> None:
    """The answer, the layers with their shapes, and the strongest chain from the answer down to a pixel."""
    tape = asked.tape
    best = np.argsort(-asked.probability_k)[:3]
    answer = ", ".join(f"{asked.classes[k]} {asked.probability_k[k]:.1%}" for k in best)
    out.print(f"{asked.file}: {answer}", soft_wrap=True)
    out.print("")
    _print_rows(out, _nodes(tape), "lllrrr")
    out.print("")
    out.print(f"the strongest path from {asked.logit} ({asked.classes[asked.label]}) down to a pixel", soft_wrap=True)
    out.print("")
    # What is worth asking next: the last convolution on the path, else the answer.
    telling = asked.logit
    for path in tape.path(asked.logit, 1):
        _print_rows(out, _chain(path), "lrl")
        on_it = [link.address for link in path.links if tape.node(find(tape, link.address).node).op == "convolution"]
        telling = (on_it or [telling])[-1]
    out.print("")
    out.print(f"next     pellucid explain {asked.run} {asked.file} '{telling}'", soft_wrap=True)


def _print_rows(out: Console, rows: Sequence[Sequence[str]], justify: str, indent: str = "") -> None:
    """Rows of words in columns, "l" or "r" each. Never cut to the terminal's width: an address is of use only whole."""
    wide = [max(len(row[k]) for row in rows) for k in range(len(justify))]
    for row in rows:
        cells = zip(row, wide, justify, strict=True)
        line = "  ".join(word.rjust(width) if side == "r" else word.ljust(width) for word, width, side in cells)
        out.print(indent + line.rstrip(), soft_wrap=True)


def computed(tape: Tape) -> list[Node]:
    """The nodes that operations of the pass computed, without parameters and the interior of recurrent ones."""
    return [node for node in tape.nodes if node.op not in LEAVES and not node.attributes.get("recomputed")]


def _nodes(tape: Tape) -> list[tuple[str, ...]]:
    nodes = [*map(tape.node, tape.inputs), *computed(tape)]
    return [("node", "operation", "shape", "mean |x|", "zero", "‖∂L/∂x‖"), *(_row(tape, node) for node in nodes)]


def _row(tape: Tape, node: Node) -> tuple[str, ...]:
    value, gradient = tape.values[node.name], tape.gradients.get(node.name)
    return (
        node.name,
        node.op,
        "×".join(map(str, node.shape)) or "1",
        f"{np.abs(value).mean():.3g}" if value.size else "",
        f"{(value == 0).mean():.0%}" if value.size and (value == 0).any() else "",
        f"{np.linalg.norm(gradient):.3g}" if gradient is not None else "",
    )


def _chain(path: Path) -> list[tuple[str, ...]]:
    rows = [
        (link.address, f"{link.value:.4g}", f"{link.share:.1%}" if depth else "share of the one above")
        for depth, link in enumerate(path.links)
    ]
    return [*rows, ("strength", f"{path.strength:.2g}", "the product of the shares")]


def _print_grids(out: Console, patch: Patch) -> None:
    """Patch × coefficients = products: side by side where the terminal is wide enough, else one below the other."""
    titles = (f"  {patch.title}", f"× {patch.factor or 'slope'}", "= products")
    grids = [_cells(numbers) for numbers in (patch.value, patch.coefficient, patch.contribution)]
    wide = [max(len(title), *(len(line) for line in grid)) + 2 for title, grid in zip(titles, grids, strict=True)]
    beside = sum(wide) + 14 <= max(out.width, 80)
    for group in [(0, 1, 2)] if beside else [(0,), (1,), (2,)]:
        out.print(Text("".join(titles[k].ljust(wide[k]) for k in group).rstrip(), style="dim"), soft_wrap=True)
        for row in range(len(grids[0])):
            line = Text()
            for k in group:
                line.append_text(grids[k][row])
                line.append(" " * (wide[k] - len(grids[k][row])))
            if row == len(grids[0]) - 1 and 2 in group:
                line.append(f"Σ = {patch.total:.4g}")
            line.rstrip()
            out.print(line, soft_wrap=True)


def _cells(numbers: NDArray[Any]) -> list[Text]:
    """A line for each row of numbers: orange above zero, blue below."""
    lines = []
    for row in numbers.tolist():
        line = Text(" ")
        for number in row:
            style = "dark_orange" if number > 0 else "dodger_blue1" if number < 0 else "dim"
            line.append(f" {number + 0.0:7.2g}" if abs(number) < 1e6 else f" {number:7.1e}", style=style)
        lines.append(line)
    return lines


def sum_rows(explanation: Explanation, shown: Sequence[Patch]) -> list[tuple[str, str]]:
    """What each patch shown adds, what all other terms do, and the result; nothing where no patch is shown."""
    if not shown:
        return []
    rows = [(patch.title, f"{patch.total:.6g}") for patch in shown]
    count = sum(map(len, explanation.parts)) - sum(patch.value.size for patch in shown)
    if count and explanation.combine == "sum":
        rows.append((f"({count:,} other terms)", f"{others(explanation, shown):.6g}"))
    return [*rows, ("the largest" if explanation.combine == "max" else "sum", f"{explanation.value:.6g}")]


def term_rows(explanation: Explanation) -> list[tuple[str, ...]]:
    """The largest terms in words: what it is, value, coefficient, contribution, and its share of them all."""
    whole = sum(float(np.abs(part.contribution).sum()) for part in explanation.parts)
    return [
        (
            term.what,
            "" if term.value is None else f"{term.value:.6g}",
            "" if term.coefficient is None else f"{term.coefficient:.6g}",
            f"{term.contribution:.6g}",
            f"{abs(term.contribution) / whole:.1%}" if whole > 0 and term.count == 1 else "",
        )
        for term in explanation.largest(TERMS)
    ]

"""Is the agreement test worth something? Break every backward pass in many small ways, and see that it notices.

The source of each backward function, and of every textbook function it calls, is read as a syntax tree. Every place
where one of these can be done gives one mutant:

- **sign**: + for −, − for +, a product negated, a returned gradient negated, < for >;
- **term**: one side of a sum or one factor of a product dropped, a returned gradient lost;
- **index**: an array shifted by one element before it is multiplied or returned.

A mutant lives only while `backward` runs, so the forward pass cannot give it away. Where it stands, the old expression
is evaluated beside the new one: a mutant that in all its examples never changed a number (a branch this operation does
not take, a factor that is always 1) is void, and not counted. The others are caught when `checks.agree` fails on one of
at most `TRIES` random examples.

    python -m tests.agree.mutate            # the table, as it stands in docs/textbook/mutations.md
"""

from __future__ import annotations

import ast
import copy
import inspect
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from tests.agree.cases import drawn
from tests.agree.checks import agree

from pellucid.textbook import OPERATIONS, Operation
from pellucid.textbook.elementwise import Elementwise
from pellucid.textbook.recurrent import Recurrence

TRIES = 60
ROOM = "pellucid.textbook"
KINDS = ("sign", "term", "index")

#: Called on the way back, but no part of a derivative: shapes, settings, the layout of a matrix product, whether a
#: branch is taken, and the sigmoid, a function of the way forth.
OUTSIDE = {"check_shape", "check_index", "unknown", "given", "pair", "sides", "contract", "_split", "_join", "windows"}
OUTSIDE |= {"factor", "_exact", "sigmoid"}


@dataclass(frozen=True)
class Mutant:
    """One change: of which function, of what kind, and the changed line."""

    operation: str
    function: str
    kind: str
    line: str
    tree: ast.Module
    target: Any


# --- finding what to change ---------------------------------------------------------------------------------------


def functions_of(operation: Operation) -> list[Any]:
    """The backward function and everything of the textbook it calls, itself first."""
    start = operation.backward
    owner = getattr(start, "__self__", None)
    found: list[Any] = [start.__func__ if isinstance(start, MethodType) else start]
    if isinstance(owner, Elementwise):
        found.append(owner.slopes)
    if isinstance(owner, Recurrence):
        found += [owner.cell_backward, Recurrence.flow]
    for function in found:
        for name in called(function):
            inner = function.__globals__.get(name.split(".")[0])
            for part in name.split(".")[1:]:
                inner = getattr(inner, part, None)
            if inner is None and name.startswith("kept.windows."):
                inner = getattr(sys.modules[f"{ROOM}.pooling"].Windows, name.split(".")[-1])
            single = sum(argument.differentiable for argument in operation.arguments) == 1
            if name == "unbroadcast" and isinstance(owner, Elementwise) and single:
                continue  # one array has nothing to be broadcast against
            mine = isinstance(inner, FunctionType) and inner.__module__.startswith(ROOM)
            if mine and inner not in found and inner is not None and inner.__name__ not in OUTSIDE:
                found.append(inner)
    return found


def called(function: Any) -> list[str]:
    """The dotted names of everything a function calls."""
    calls = [node.func for node in ast.walk(tree_of(function)) if isinstance(node, ast.Call)]
    return [ast.unparse(call) for call in calls if isinstance(call, ast.Name | ast.Attribute)]


def tree_of(function: Any) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


# --- changing it --------------------------------------------------------------------------------------------------


def negated(node: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.USub(), node)


def lost(node: ast.expr) -> ast.expr:
    return ast.BinOp(node, ast.Mult(), ast.Constant(0))


def shifted(node: ast.expr) -> ast.expr:
    return ast.Call(ast.Name("shift", ast.Load()), [node], [])


class Probe:
    """Evaluates the old expression and the new one, gives the new, and remembers whether they ever differed."""

    def __init__(self) -> None:
        self.differed = False

    def __call__(self, old: Callable[[], Any], new: Callable[[], Any]) -> Any:
        before = old()
        try:
            after = new()
        except Exception:
            self.differed = True
            raise
        self.differed = self.differed or not same(before, after)
        return after


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a is b or np.array_equal(np.asarray(a), np.asarray(b)))


def shift(value: Any) -> Any:
    """An array shifted by one element; a single number is what it was."""
    return np.roll(value, 1) if isinstance(value, np.ndarray) else value


def each(change: Callable[[Any], Any], gradients: dict[str, Any]) -> dict[str, Any]:
    """The first of several gradients changed."""
    first = next(iter(gradients))
    return {**gradients, first: change(gradients[first])}


def changes(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Every (kind, replacement) for one expression."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        other: ast.operator = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        yield "sign", ast.BinOp(node.left, other, node.right)
        yield "term", node.left
        yield "term", node.right if isinstance(node.op, ast.Add) else negated(node.right)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div | ast.MatMult):
        yield "sign", negated(copy.deepcopy(node))
        if not isinstance(node.op, ast.MatMult):
            yield "term", node.left
        if not isinstance(node.left, ast.Constant):
            yield "index", ast.BinOp(shifted(node.left), node.op, node.right)
    elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Gt | ast.GtE | ast.Lt | ast.LtE):
        turned = {ast.Gt: ast.Lt, ast.GtE: ast.LtE, ast.Lt: ast.Gt, ast.LtE: ast.GtE}[type(node.ops[0])]
        yield "sign", ast.Compare(node.left, [turned()], node.comparators)


#: Numbers about places, not gradients: a change there is no wrong derivative, and some change nothing.
PLACES = (ast.Slice, ast.comprehension)


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, str, int | None, ast.expr]]:
    """Every expression that carries numbers: its parent, the field (and position) it stands in, and itself."""
    queue: list[ast.AST] = [tree]
    while queue:
        parent = queue.pop()
        for name, value in ast.iter_fields(parent):
            for position, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                skipped = (isinstance(parent, ast.FunctionDef) and name in {"args", "returns"}) or name == "annotation"
                index = isinstance(parent, ast.Subscript) and name == "slice"
                if not isinstance(child, ast.AST) or isinstance(child, PLACES) or skipped or index:
                    continue
                queue.append(child)
                if isinstance(child, ast.expr):
                    yield parent, name, position, child


def returned(tree: ast.Module) -> Iterator[tuple[ast.AST, str, int | None, ast.expr]]:
    """What a function gives back: dictionary values, arguments of `given`, elements of a tuple, or the value itself."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Return) or node.value is None:
            continue
        value = node.value
        if isinstance(value, ast.Dict):
            yield from ((value, "values", k, v) for k, v in enumerate(value.values) if value.keys[k] is not None)
        elif isinstance(value, ast.Tuple):
            yield from ((value, "elts", k, v) for k, v in enumerate(value.elts) if ast.unparse(v) != "None")
        elif isinstance(value, ast.Call) and ast.unparse(value.func) == "given":
            yield from ((keyword, "value", None, keyword.value) for keyword in value.keywords)
        elif "Flow(" not in ast.unparse(value):
            yield node, "value", None, value


def guarded(value: ast.expr, change: Callable[[ast.expr], ast.expr]) -> ast.expr:
    """A change of a gradient that may be None (a bias left out) leaves None alone."""
    if isinstance(value, ast.IfExp):
        return ast.IfExp(value.test, guarded(value.body, change), guarded(value.orelse, change))
    return value if isinstance(value, ast.Constant) and value.value is None else change(value)


def many(tree: ast.Module) -> bool:
    """Whether the function returns gradients by name."""
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    return function.returns is not None and "dict" in ast.unparse(function.returns)


def in_each(change: str, node: ast.expr) -> ast.expr:
    """The change, done to the first gradient of a dictionary."""
    return ast.parse(f"each(lambda d: {change}, {ast.unparse(node)})", mode="eval").body


def mutants(operation: Operation) -> Iterator[Mutant]:
    for target in functions_of(operation):
        tree = tree_of(target)
        sites: list[tuple[str, int, ast.expr]] = []
        every = list(places(tree))
        for number, (_, _, _, child) in enumerate(every):
            sites += [(kind, number, new) for kind, new in changes(child)]
        yield from (planted(operation, target, tree, every, *site) for site in sites)
        ends = list(returned(tree))
        for number, (parent, _, _, child) in enumerate(ends):
            whole = many(tree) and isinstance(parent, ast.Return)
            for kind, change, written in (
                ("sign", negated, "-d"),
                ("term", lost, "d * 0"),
                ("index", shifted, "shift(d)"),
            ):
                new = in_each(written, child) if whole else guarded(child, change)
                yield planted(operation, target, tree, ends, kind, number, new)


def planted(
    operation: Operation, target: Any, tree: ast.Module, sites: list[Any], kind: str, number: int, new: ast.expr
) -> Mutant:
    """The whole tree with one expression replaced."""
    parent, name, position, old = sites[number]
    nothing = ast.arguments([], [], None, [], [], None, [])
    both = ast.Call(ast.Name("probe", ast.Load()), [ast.Lambda(nothing, e) for e in (old, new)], [])
    if position is None:
        setattr(parent, name, both)
    else:
        getattr(parent, name)[position] = both
    changed = copy.deepcopy(tree)
    if position is None:
        setattr(parent, name, old)
    else:
        getattr(parent, name)[position] = old
    line = f"{ast.unparse(old)}  ->  {ast.unparse(new)}"
    return Mutant(operation.name, target.__name__, kind, line, ast.fix_missing_locations(changed), target)


# --- trying it ----------------------------------------------------------------------------------------------------


def compiled(mutant: Mutant, probe: Probe) -> Any:
    scope = dict(mutant.target.__globals__) | {"np": np, "shift": shift, "each": each, "probe": probe}
    exec(compile(mutant.tree, "<mutant>", "exec"), scope)
    return scope[mutant.target.__name__]


@contextmanager
def in_place_of(original: Any, new: Any) -> Iterator[None]:
    """Every name in the textbook that means `original` means `new`, for a while."""
    modules = [module for name, module in sys.modules.items() if name.startswith(ROOM)]
    owners = [*modules, Elementwise, Recurrence, sys.modules[f"{ROOM}.pooling"].Windows]
    names = [(owner, name) for owner in owners for name, value in vars(owner).items() if value is original]
    for owner, name in names:
        setattr(owner, name, new)
    try:
        yield
    finally:
        for owner, name in names:
            setattr(owner, name, original)


def broken(operation: Operation, mutant: Mutant, probe: Probe) -> Operation:
    """The operation with the mutant in its backward pass, and nowhere else."""
    new = compiled(mutant, probe)
    owner = getattr(operation.backward, "__self__", None)
    way: Callable[..., Any] = operation.backward
    if isinstance(owner, Elementwise) and mutant.target is owner.slopes:
        way = owner.with_slopes(new).backward
    elif isinstance(owner, Recurrence) and mutant.target is owner.cell_backward:
        way = replace(owner, cell_backward=new).backward
    elif mutant.target is getattr(way, "__func__", way):
        way = MethodType(new, owner) if owner is not None else new

    def backward(dy: Any, kept: Any) -> Any:
        with in_place_of(mutant.target, new):
            return way(dy, kept)

    return replace(operation, backward=backward)


def caught(mutant: Mutant) -> str:
    """How the agreement test noticed: "numbers" (a comparison failed), "error" (it crashed), "missed" (it did not).

    "void": in all its tries it never changed a number.
    """
    probe = Probe()
    operation = broken(OPERATIONS[mutant.operation], mutant, probe)
    for seed in range(TRIES):
        rng = np.random.default_rng(seed)
        example = drawn(mutant.operation, rng)
        try:
            with np.errstate(all="ignore"):
                agree(operation, example, rng)
        except AssertionError:
            return "numbers"
        except Exception:  # noqa: BLE001  any failure fails the test
            return "error"
    return "missed" if probe.differed else "void"


def table(names: list[str] | None = None) -> tuple[list[str], list[Mutant]]:
    """The table's rows, and the mutants that nobody noticed."""
    torch.set_num_threads(1)
    rows, missed = [], []
    total: Counter[str] = Counter()
    for name in names or list(OPERATIONS):
        count: Counter[str] = Counter()
        for mutant in mutants(OPERATIONS[name]):
            how = caught(mutant)
            if how != "void":
                count.update([mutant.kind, how])
            if how == "missed":
                missed.append(mutant)
        total.update(count)
        rows.append(line(f"`{name}`", count))
    return [*rows, line("**all**", total)], missed


def line(name: str, count: Counter[str]) -> str:
    made = sum(count[kind] for kind in KINDS)
    cells = [*(count[kind] for kind in KINDS), made, count["numbers"], count["error"], count["missed"]]
    return f"| {name} | " + " | ".join(map(str, cells)) + " |"


HEADER = """# How the agreement test was tested

Every backward pass, and every function of the textbook that it calls, was broken on purpose: a sign flipped, a term or
a factor dropped, an array shifted by one element; one change at a time, only while `backward` ran. A mutant is caught
when the agreement test fails on one of at most {tries} random examples, by a comparison (*numbers*) or by a crash
(*error*). A function that several operations share is broken for each of them anew.
A change that in none of its examples changed a number (a branch not taken, a factor that is always 1) is no mutant.

Made by `python -m tests.agree.mutate`.

| operation | sign | term | index | mutants | by numbers | by error | missed |
|---|---:|---:|---:|---:|---:|---:|---:|
"""


def main() -> int:
    rows, missed = table(sys.argv[1:])
    print(HEADER.format(tries=TRIES) + "\n".join(rows))
    for mutant in missed:
        print(f"missed: {mutant.operation}: {mutant.function}: {mutant.kind}: {mutant.line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

"""An exported graph as a flat list of steps: regions without gradients unrolled, every value with its readers.

Nothing here imports torch: nodes of a graph, schemas of operations and tensors are used by what they have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pellucid.explain.names import Call, Stack, short, source_of, stack_of

#: The region of a graph that stands for `with torch.no_grad():` (or enable_grad), and the one for torch.autocast.
GRAD_REGION, AUTOCAST_REGION = "wrap_with_set_grad_enabled", "wrap_with_autocast"


@dataclass(frozen=True, eq=False)
class Stage:
    """One call of the graph; `args` and `kwargs` hold nodes where values stand. `grad`: whether gradients pass."""

    node: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    grad: bool
    stack: Stack
    source: str

    @property
    def target(self) -> Any:
        """The operation."""
        return self.node.target

    @property
    def takes_part(self) -> bool:
        """Whether it only picks one of the values that another step gave."""
        return getattr(self.target, "__name__", "") == "getitem"


@dataclass(eq=False)
class Program:
    """A graph to run: its inputs (node, kind, name), its steps, what it gives, and the last step that reads a value.

    `outputs` are the nodes the model gives, in the order of `spec`; `regions` names the kinds of region in the graph.
    `gradients_lost`: it was made from one with regions without gradients, and has lost sight of them.
    """

    inputs: list[tuple[Any, str, str]]
    constants: Mapping[str, Any]
    steps: list[Stage]
    outputs: list[Any]
    spec: Any
    regions: set[str] = field(default_factory=set)
    gradients_lost: bool = False
    readers: dict[Any, list[int]] = field(default_factory=dict)

    def last_read(self, node: Any) -> int:
        """The position of the last step that reads a node's value; one past the last for what the model gives."""
        return max(self.readers.get(node, [-1]))

    def calls(self, kept: list[int]) -> list[Call]:
        """The steps at the positions `kept`, for naming; readers through picked parts count as readers."""
        where = {position: number for number, position in enumerate(kept)} | {len(self.steps): len(kept)}
        calls = []
        for position in kept:
            step = self.steps[position]
            readers = tuple(where[reader] for reader in self.final_readers(step.node) if reader in where)
            calls.append(Call(step.stack, short(str(step.target)), readers))
        return calls

    def kept(self) -> list[int]:
        """The positions of the steps that matter to what the model gives (those that count batches do not)."""
        needed, kept = {len(self.steps)}, []
        for k in reversed(range(len(self.steps))):
            if needed.intersection(self.readers.get(self.steps[k].node, ())):
                needed.add(k)
                kept += [] if self.steps[k].takes_part else [k]
        return kept[::-1]

    def is_read(self, node: Any) -> bool:
        """Whether anything reads a node's value or a part of it."""
        return next(self.final_readers(node), None) is not None

    def picked(self, node: Any) -> set[int]:
        """Which of several values of a node are read."""
        parts = [self.steps[k] for k in self.readers.get(node, []) if k < len(self.steps)]
        return {int(part.args[1]) for part in parts if part.takes_part and self.is_read(part.node)}

    def final_readers(self, node: Any) -> Iterator[int]:
        """The positions of the steps that read a node's value, or a part of it that was picked."""
        for reader in self.readers.get(node, []):
            if reader < len(self.steps) and self.steps[reader].takes_part:
                yield from self.final_readers(self.steps[reader].node)
            else:
                yield reader


def program_of(exported: Any, libraries: tuple[str, ...], root: str = "", without: str = "") -> Program:
    """The graph of a torch.export.ExportedProgram; `root` is put before the paths of modules, `without` left out."""
    signature = exported.graph_signature
    flat = _Flattening(libraries, root, without)
    flat.walk(exported.graph_module, grad=True)
    nodes = {node.name: node for node in exported.graph.nodes}
    inputs = [(nodes[spec.arg.name], spec.kind.name, spec.target or spec.arg.name) for spec in signature.input_specs]
    given = [spec for spec in signature.output_specs if spec.kind.name == "USER_OUTPUT"]
    # What is given back unchanged or fixed (None, a number) has no node.
    outputs = [flat.resolved(nodes.get(getattr(spec.arg, "name", ""))) for spec in given]
    out_spec = exported.call_spec.out_spec
    program = Program(inputs, dict(exported.constants), flat.steps, outputs, out_spec, flat.regions)
    for position, step in enumerate(program.steps):
        for node in dict.fromkeys(found((step.args, dict(step.kwargs)))):
            program.readers.setdefault(node, []).append(position)
    for node in outputs:
        if node is not None:
            program.readers.setdefault(node, []).append(len(program.steps))
    return program


@dataclass(eq=False)
class _Flattening:
    """The steps so far, and which node stands for which where a region was entered or left."""

    libraries: tuple[str, ...]
    root: str
    without: str
    steps: list[Stage] = field(default_factory=list)
    regions: set[str] = field(default_factory=set)
    same: dict[Any, Any] = field(default_factory=dict)
    given: dict[Any, list[Any]] = field(default_factory=dict)

    def walk(self, module: Any, grad: bool) -> list[Any]:
        """Append the steps of a graph; what it gives, as nodes."""
        for node in module.graph.nodes:
            if node.op == "output":
                return [self.resolved(value) for value in node.args[0]]
            if node.op == "call_function":
                self.call(module, node, grad)
        return []

    def call(self, module: Any, node: Any, grad: bool) -> None:
        """Append one call, or the steps of the region that it enters."""
        name = str(getattr(node.target, "__name__", node.target))
        if name in {GRAD_REGION, AUTOCAST_REGION}:
            self.regions.add(name)
            # What is set for the region, the graph of what is inside, and what that takes from outside.
            at = next(k for k, one in enumerate(node.args) if is_node(one) and one.op == "get_attr")
            graph, operands = getattr(module, node.args[at].target), node.args[at + 1 :]
            taken = [inner for inner in graph.graph.nodes if inner.op == "placeholder"]
            self.same |= {inner: self.resolved(outer) for inner, outer in zip(taken, operands, strict=True)}
            self.given[node] = self.walk(graph, bool(node.args[0]) if name == GRAD_REGION else grad)
        elif name == "getitem" and node.args[0] in self.given:
            self.same[node] = self.given[node.args[0]][node.args[1]]
        else:
            if "higher_order" in type(node.target).__module__:
                self.regions.add(name)
            args, kwargs = mapped(node.args, self.resolved), mapped(dict(node.kwargs), self.resolved)
            place = (stack_of(node.meta, self.root, self.without), source_of(node.meta, self.libraries))
            self.steps.append(Stage(node, args, kwargs, grad, *place))

    def resolved(self, node: Any) -> Any:
        """The node that computes what this one stands for."""
        while node in self.same:
            node = self.same[node]
        return node


def take_places(program: Program, before: Program) -> None:
    """Give steps that lost their place, when regions were dissolved, that of the same operation in the graph before.

    The two are alike but for casts, which go to the operation that they are for, and for what does nothing at rest.
    """
    named = [short(str(stage.target)) for stage in before.steps]
    at, waiting = 0, []
    for k, stage in enumerate(program.steps):
        name = short(str(stage.target))
        match = next((number for number in range(at, len(named)) if named[number] == name), None)
        if len(stage.stack) == 1 and not stage.source:
            waiting.append(k)
        if match is None:
            continue
        at = match + 1
        for one in waiting:
            place = before.steps[match]
            program.steps[one] = replace(program.steps[one], stack=place.stack, source=place.source)
        waiting.clear()


def is_node(value: Any) -> bool:
    """Whether a value is a node of a graph."""
    return hasattr(value, "op") and hasattr(value, "all_input_nodes")


def mapped(value: Any, function: Callable[[Any], Any], which: Callable[[Any], bool] = is_node) -> Any:
    """`value` with `function` applied to every node (or whatever `which` says) in nested lists and dictionaries."""
    if which(value):
        return function(value)
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(item, function, which) for item in value)
    if isinstance(value, dict):
        return {key: mapped(item, function, which) for key, item in value.items()}
    return value


def found(value: Any, which: Callable[[Any], bool] = is_node) -> list[Any]:
    """Every node (or whatever `which` says) in nested lists and dictionaries, in order, repeats included."""
    inside: list[Any] = []
    mapped(value, inside.append, which)
    return inside


def bound(schema: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by the names of the operation's schema, defaults filled in."""
    named: dict[str, Any] = {}
    for position, argument in enumerate(schema.arguments):
        if position < len(args):
            named[argument.name] = args[position]
        elif argument.name in kwargs:
            named[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            named[argument.name] = argument.default_value
    return named


def written(schema: Any) -> list[str]:
    """The arguments that an operation writes to, by its schema."""
    return [a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]

"""A graph run operation by operation by the engine, every value kept under its name, with the rule that made it.

torch itself is handed in as `engine`; nothing here imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pellucid.explain import graph
from pellucid.explain.graph import Program, Stage
from pellucid.explain.inside import RECURRENCES
from pellucid.explain.lower import Lowered, Ref, lower, lower_part
from pellucid.explain.names import container_aliases, name_calls, unique
from pellucid.explain.node import Node
from pellucid.textbook import OPERATIONS

Tensor = Any

_DROPOUTS = ("aten.dropout.default", "aten.feature_dropout.default")
_RECURRENT = ("aten.lstm.input", "aten.rnn_tanh.input")
#: Operations that only hand a constant on.
_HANDED_ON = ("aten.lift_fresh_copy.default", "aten.lift_fresh.default", "aten.detach.default", "aten.clone.default")


class UnsafeError(Exception):
    """An operation in place whose old value, or an alias of it, is read later."""


@dataclass(frozen=True)
class Where:
    """Where an operation stands: its name, the module it was called in, and the line of the user's program."""

    name: str
    module: str = ""
    source: str = ""

    def at(self, part: str) -> Where:
        """A value of that operation."""
        return replace(self, name=f"{self.name}.{part}")


@dataclass(eq=False)
class Run:
    """A pass under way: the nodes and tensors so far, and the node of every tensor (by identity)."""

    engine: Any
    leaves: list[Node] = field(default_factory=list)
    operations: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    refs: dict[int, Ref] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=lambda: {"loss"})
    alive: list[Tensor] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    # --- leaves and operations -----------------------------------------------------------------------------------

    def keep(self, name: str, tensor: Tensor) -> Ref:
        """A tensor under its name. It stays alive, so that its identity stays its own."""
        ref = Ref(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        self.tensors[name] = tensor
        self.refs[id(tensor)] = ref
        return ref

    def leaf(self, name: str, op: str, tensor: Tensor, module: str = "", source: str = "") -> Ref:
        """A parameter, buffer, constant or input."""
        name = unique(name, self.taken)
        self.leaves.append(Node(name, op, (), {}, tuple(tensor.shape), module, source))
        return self.keep(name, tensor)

    def stand_in(self, tensor: Tensor, other: Tensor) -> Tensor:
        """Another tensor that stands for one that is kept."""
        self.alive.append(other)
        self.refs[id(other)] = self.ref(tensor)
        return other

    def close_loss(self, scalar: Tensor) -> None:
        """Make the node of the loss out of the operation that gave it."""
        if "loss" not in self.tensors:
            self.emit(Where("loss", "loss"), "aten.alias.default", {"self": scalar}, scalar.view_as(scalar))
        at = next(k for k, node in enumerate(self.operations) if node.name == "loss")
        node = self.operations.pop(at)
        self.operations.append(replace(node, op="loss", attributes={"operation": node.op, **node.attributes}))

    def emit(self, where: Where, target: str, arguments: Mapping[str, Any], tensor: Tensor, part: int = 0) -> None:
        """One tensor that an operation gave: its node, with the textbook's rule where there is one."""
        handles = self.handles(arguments)
        reads = graph.found(handles, is_ref)
        if not reads:
            self.leaf_named(where, tensor)
            return
        if target in _HANDED_ON and any(node.name == reads[0].name and node.op == "constant" for node in self.leaves):
            self.stand_in(self.tensors[reads[0].name], tensor)
            self.taken.discard(where.name)
            return
        lowered = lower_part(target, handles, part) or (lower(target, handles) if part == 0 else None)
        if lowered is None:
            plain = {name: value for name, value in arguments.items() if _is_plain(value)}
            names: tuple[str | None, ...] = tuple(ref.name for ref in reads)
            if part:
                plain |= {"of": where.name.rpartition(".")[0], "output": str(part)}
            self.add(where, target, names, plain, tensor)
            return
        settings = dict(lowered.attributes)
        if lowered.output is not None and lowered.op in RECURRENCES:
            settings["output"] = lowered.output
        self.add(where, lowered.op, self.inputs(where, lowered, tensor), settings, tensor)

    def add(self, where: Where, op: str, inputs: Sequence[str | None], attributes: Any, tensor: Tensor) -> None:
        """A node of an operation."""
        shape = tuple(tensor.shape)
        self.operations.append(Node(where.name, op, tuple(inputs), attributes, shape, where.module, where.source))
        self.taken.add(where.name)
        self.keep(where.name, tensor)

    def leaf_named(self, where: Where, tensor: Tensor) -> None:
        """What was made from nothing (zeros, a range, random numbers): a constant."""
        self.leaves.append(Node(where.name, "constant", (), {}, tuple(tensor.shape), where.module, where.source))
        self.keep(where.name, tensor)

    def inputs(self, where: Where, lowered: Lowered, like: Tensor) -> list[str | None]:
        """The names of a textbook call's arrays; a plain number becomes a constant of its own."""
        names = OPERATIONS[lowered.op].argument_names(len(lowered.inputs))
        made: list[str | None] = []
        for name, value in zip(names, lowered.inputs, strict=True):
            if value is None or is_ref(value):
                made.append(None if value is None else value.name)
            else:
                fraction = like.dtype if like.is_floating_point() else None
                number = self.engine.tensor(value, dtype=fraction)
                made.append(self.leaf(f"{where.name}.{name}", "constant", number, where.module).name)
        return made

    def handles(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call with the node of each tensor in its place."""
        result: dict[str, Any] = graph.mapped(dict(arguments), self.ref, is_tensor)
        return result

    def ref(self, tensor: Tensor) -> Ref:
        """The node of a tensor."""
        return self.refs[id(tensor)]

    # --- a graph -------------------------------------------------------------------------------------------------

    def walk(self, program: Program, values: Mapping[Any, Tensor], final: str = "") -> list[Tensor | None]:
        """Run a graph on the tensors given for its inputs; what it gives. Its first output is named `final`, if given.

        Raises UnsafeError where a value would be changed in place that is read later.
        """
        kept = program.kept()
        calls = program.calls(kept)
        if final:
            self.taken.add(final)
        names = dict(zip(kept, name_calls(calls, self.taken), strict=True))
        env, storages = dict(values), _Storages()
        for node, tensor in values.items():
            storages.add(node, tensor)
        for position, stage in enumerate(program.steps):
            args, kwargs = graph.mapped((stage.args, dict(stage.kwargs)), env.__getitem__)
            if stage.takes_part:
                env[stage.node] = args[0][args[1]]
            else:
                where = Where(names.get(position, ""), stage.stack[-1][1], stage.source)
                if final and stage.node is program.outputs[0]:
                    self.taken.discard(where.name)
                    where = replace(where, name=final)
                with self.engine.set_grad_enabled(stage.grad and self.engine.is_grad_enabled()):
                    env[stage.node] = self.call(program, position, where, args, kwargs, storages)
            storages.add(stage.node, env[stage.node])
        found = [names[position] for position in kept]
        self.aliases |= container_aliases(calls, found, self.taken)
        return [None if node is None else env[node] for node in program.outputs]

    def call(self, program: Program, position: int, where: Where, args: Any, kwargs: Any, storages: _Storages) -> Any:
        """One operation, and the nodes of what it gives, where anything reads it."""
        stage = program.steps[position]
        target, schema = stage.target, getattr(stage.target, "_schema", None)
        if schema is None:
            return target(*args, **kwargs)
        arguments = graph.bound(schema, args, kwargs)
        if graph.written(schema):
            changed = storages.aliases(arguments[graph.written(schema)[0]])
            if any(program.last_read(node) > position for node in changed - {stage.node}):
                raise UnsafeError(str(target))
            target = self.functional(target)
            # The two may call their arguments differently.
            arguments = graph.bound(target._schema, args, kwargs)
        name, given = str(target), None
        if where.name and arguments.get("train") and name in _DROPOUTS and 0 < arguments["p"] < 1:
            given = self.dropped(where, name, arguments)
        elif where.name and name == "aten.native_dropout.default" and arguments["train"]:
            given = target(*args, **kwargs)
            self.masked(where, arguments, given[1], given[0])
        elif where.name and name in _RECURRENT:
            given = self.recurrent(where, target, arguments)
        if given is not None:
            return given
        if name == "aten.copy.default":
            # It has no derivative, and is nothing but its second argument in the first one's shape and type.
            old, new = arguments["self"], arguments["src"]
            given = new.to(old.dtype).expand_as(old).clone()
            if new.dtype == old.dtype:
                name, arguments = "aten.expand_as.default", {"self": new, "other": old}
        else:
            given = target(*args, **kwargs)
        if graph.written(schema) and not _alike(given, args[0]):
            raise UnsafeError(str(target))
        return self.distinct(given) if not where.name else self.outputs(program, stage, where, name, arguments, given)

    def outputs(
        self, program: Program, stage: Stage, where: Where, name: str, arguments: Mapping[str, Any], given: Any
    ) -> Any:
        """The nodes of what an operation gave: one, or one for each part that is read."""
        given = self.distinct(given)
        if is_tensor(given):
            self.emit(where, name, arguments, given)
        elif isinstance(given, (tuple, list)):
            read = program.picked(stage.node) if lower_part(name, self.handles(arguments), 0) else {0}
            for part in sorted(read | program.picked(stage.node)):
                if is_tensor(given[part]):
                    self.emit(where.at(str(part)) if part else where, name, arguments, given[part], part)
        return given

    def distinct(self, given: Any) -> Any:
        """What an operation gave, as tensors that no other operation gave: a dropout at rest gives its own input."""
        if is_tensor(given):
            return given.view_as(given) if id(given) in self.refs else given
        return type(given)(map(self.distinct, given)) if type(given) in {tuple, list} else given

    def functional(self, target: Any) -> Any:
        """The operation that gives as a new value what this one writes in place."""
        namespace, name, overload = str(target).split(".")
        packet = getattr(getattr(self.engine.ops, namespace), name.removesuffix("_"), None)
        found = getattr(packet, overload, None)
        if found is None or graph.written(found._schema):
            raise UnsafeError(str(target))
        return found

    # --- operations that are more than one call --------------------------------------------------------------------

    def dropped(self, where: Where, name: str, arguments: Mapping[str, Any]) -> Tensor:
        """A dropout that trains: drawn and scaled as torch draws and scales it, the mask kept as a constant."""
        x, p = arguments["input"], arguments["p"]
        if name == "aten.feature_dropout.default":
            noise = x.new_empty((*x.shape[:2], *(1 for _ in x.shape[2:])))
        elif x.device.type != "cpu":
            y, kept = self.engine.ops.aten.native_dropout(x, p, True)
            return self.masked(where, arguments, kept, y)
        else:
            noise = self.engine.empty_like(x)
        noise.bernoulli_(1 - p).div_(1 - p)
        return self.masked(where, arguments, noise != 0, x * noise)

    def masked(self, where: Where, arguments: Mapping[str, Any], mask: Tensor, y: Tensor) -> Tensor:
        """The nodes of a dropout and its mask."""
        mask = mask.to(y.dtype)
        self.leaf(f"{where.name}.mask", "constant", mask, where.module, where.source)
        self.emit(where, "aten.dropout.default", {**arguments, "mask": mask}, y)
        return y

    def recurrent(self, where: Where, target: Any, arguments: Mapping[str, Any]) -> Any:
        """Layers one above the other; where dropout stands between them, one operation a layer. None: as it stands.

        Sequences of the shape (T, N, D) are turned first. All this is what the engine does inside the one operation.
        """
        drops = arguments["train"] and arguments["dropout"] > 0 and arguments["num_layers"] > 1
        if arguments["bidirectional"] or arguments["input"].ndim != 3:
            return None
        if not arguments["batch_first"]:
            first = arguments["input"].transpose(0, 1)
            turn = {"dim0": 0, "dim1": 1}
            self.emit(where.at("input"), "aten.transpose.int", {"self": arguments["input"], **turn}, first)
            y, *ends = self.layers(where.at("cells"), target, {**arguments, "input": first, "batch_first": True}, drops)
            back = y.transpose(0, 1)
            self.emit(where, "aten.transpose.int", {"self": y, **turn}, back)
            inner = [node.name for node in self.operations if node.name.startswith(f"{where.name}.cells.")]
            self.aliases |= {name.replace(".cells.", ".", 1): name for name in inner}
            return (back, *ends)
        return self.layers(where, target, arguments, drops)

    def layers(self, where: Where, target: Any, arguments: Mapping[str, Any], drops: bool) -> tuple[Tensor, ...]:
        """The operation on sequences (N, T, D), its last states as further nodes."""
        if not drops:
            return self.stack(where, target, arguments)
        count, weights = arguments["num_layers"], arguments["params"]
        each = len(weights) // count
        hx = arguments["hx"] if isinstance(arguments["hx"], (list, tuple)) else [arguments["hx"]]
        y, ends = arguments["input"], []
        for layer in range(count):
            here = where.at(f"layer{layer}")
            start = [self.piece(here.at(f"start{k}"), state, layer) for k, state in enumerate(hx)]
            own = {
                **arguments,
                "input": y,
                "hx": start if isinstance(arguments["hx"], (list, tuple)) else start[0],
                "params": list(weights[layer * each : (layer + 1) * each]),
                "num_layers": 1,
                "dropout": 0.0,
            }
            y, *last = self.stack(here, target, own)
            ends.append(last)
            if layer + 1 < count:
                between = {"input": y, "p": arguments["dropout"], "train": True}
                y = self.between(where.at(f"dropout{layer}"), between)
        # The top layer's sequence is the whole operation's.
        top = self.distinct(y)
        self.emit(where, "aten.alias.default", {"self": y}, top)
        joins = []
        for k, name in enumerate(f"{s}_n" for s in ("h", "c")[: len(hx)]):
            parts = [last[k] for last in ends]
            joins.append(self.engine.cat(parts))
            self.emit(where.at(name), "aten.cat.default", {"tensors": parts, "dim": 0}, joins[-1])
        return (top, *joins)

    def between(self, where: Where, arguments: Mapping[str, Any]) -> Tensor:
        """The dropout between two layers; of everything, where p is 1."""
        if arguments["p"] < 1:
            return self.dropped(where, "aten.dropout.default", arguments)
        y = self.engine.ops.aten.dropout.default(*arguments.values())
        self.emit(where, "aten.dropout.default", arguments, y)
        return y

    def piece(self, where: Where, states: Tensor, layer: int) -> Tensor:
        """One layer's state (1, N, H) out of those of all."""
        own = states[layer : layer + 1]
        cut = {"self": states, "dim": 0, "start": layer, "end": layer + 1, "step": 1}
        self.emit(where, "aten.slice.Tensor", cut, own)
        return own

    def stack(self, where: Where, target: Any, arguments: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """The engine's one operation, and its outputs as nodes: y under its name, then h_n and c_n."""
        given = target(*arguments.values())
        self.emit(where, str(target), arguments, given[0])
        node = self.operations[-1]
        for k, tensor in enumerate(given[1:]):
            name = ("h_n", "c_n")[k]
            settings = {**node.attributes, "of": where.name, "output": name}
            self.add(where.at(name), node.op, node.inputs, settings, tensor)
        return tuple(given)


@dataclass(eq=False)
class _Storages:
    """Which values share memory."""

    nodes: dict[int, set[Any]] = field(default_factory=dict)

    def add(self, node: Any, value: Any) -> None:
        """A value of the graph."""
        for tensor in graph.found(value, is_tensor):
            self.nodes.setdefault(_storage(tensor), set()).add(node)

    def aliases(self, tensor: Tensor) -> set[Any]:
        """The nodes whose values share this tensor's memory."""
        return self.nodes.get(_storage(tensor), set())


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, (bool, int, float, str)) for item in value)
    return isinstance(value, (bool, int, float, str))


def _alike(given: Any, old: Tensor) -> bool:
    return bool(given.shape == old.shape and given.dtype == old.dtype)


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of the engine's."""
    return hasattr(value, "untyped_storage")


def is_ref(value: Any) -> bool:
    """Whether a value stands for a tensor by its node."""
    return isinstance(value, Ref)

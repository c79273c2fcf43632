"""The parts of a tape out of a file, each checked: what does not fit together raises UnsoundError."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.explain.node import BOUNDS, LEAVES, Clipping, Node, Pixels, Step, Update, operation_of
from pellucid.textbook import OPTIMISERS
from pellucid.textbook.update import COMMON

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pellucid.explain.node import Array

_WORDS = {"name", "op", "inputs", "attributes", "shape", "module", "source"}
_FIELDS = {"version", "nodes", "update", "precision", "training", "inputs", "output", "loss", "pixels", "notes"}
_FIELDS |= {"aliases"}


class UnsoundError(ValueError):
    """What is wrong with a tape that was read; its message is the middle of a sentence."""


def fields(description: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Any]:
    """The arguments of `Tape` from a file's description and arrays. Raises UnsoundError."""
    _need(set(description) == _FIELDS, f"its description should have {', '.join(sorted(_FIELDS))}, and nothing else")
    left = dict(arrays)
    nodes = _nodes(description["nodes"])
    known = {node.name: node for node in nodes}
    made: dict[str, Any] = {"nodes": nodes}
    made["values"] = {name: _taken(left, f"values/{name}", node.shape, "fiub") for name, node in known.items()}
    for kind in ("gradients", "after"):
        names = [key.removeprefix(f"{kind}/") for key in left if key.startswith(f"{kind}/")]
        _need(set(names) <= set(known), f"its {kind} are of {_strangers(names, known)}, which it has no node of")
        made[kind] = {name: _taken(left, f"{kind}/{name}", known[name].shape, "f") for name in names}
    made["update"] = _update(description["update"], known, left)
    stepped = {name for name, node in known.items() if node.op == "parameter" and made["update"] is not None}
    _need(set(made["after"]) <= stepped, f"it has {_strangers(made['after'], stepped)} after a step, no parameter")
    made["inputs"] = _texts(description["inputs"], "inputs")
    made["output"], made["loss"] = description["output"], description["loss"]
    _point(made, known)
    made["pixels"] = _pixels(description["pixels"], made, known, left)
    made["notes"] = list(_texts(description["notes"], "notes"))
    made["precision"], made["training"] = description["precision"], description["training"]
    _need(isinstance(made["precision"], str) and made["precision"] in BOUNDS, "its precision is none that is known")
    _need(isinstance(made["training"], bool), "its mode of training is neither true nor false")
    aliases = description["aliases"]
    _need(isinstance(aliases, dict), "its aliases are no object")
    for alias, name in aliases.items():
        _need(alias not in known and isinstance(name, str) and name in known, f"its alias {alias!r:.80} names no node")
    made["aliases"] = aliases
    _need(not left, f"it has an array {next(iter(left), '')!r:.80} that nothing speaks of")
    return made


def _need(met: bool, why: str) -> None:
    if not met:
        raise UnsoundError(why)


def _strangers(names: Any, known: Any) -> str:
    return f"{next((name for name in names if name not in known), '')!r:.80}"


def _texts(value: Any, what: str) -> tuple[str, ...]:
    _need(isinstance(value, list) and all(isinstance(one, str) for one in value), f"its {what} are not texts")
    return tuple(value)


def _taken(left: dict[str, Array], key: str, shape: tuple[int, ...], kinds: str) -> Array:
    """An array, no longer among those left; refused when missing, of another shape, or of another kind of number."""
    _need(key in left, f"it has no array {key!r:.80}")
    array = left.pop(key)
    _need(array.shape == shape, f"{key!r:.80} has shape {array.shape}, and its node {shape}")
    good = array.dtype.kind in kinds and array.dtype != np.float16
    _need(good, f"{key!r:.80} is of type {array.dtype}")
    return array


def _nodes(entries: Any) -> list[Node]:
    _need(isinstance(entries, list) and len(entries) > 0, "it has no list of nodes")
    nodes: list[Node] = []
    seen: dict[str, Node] = {}
    for entry in entries:
        _need(isinstance(entry, dict) and set(entry) == _WORDS, f"a node should have {', '.join(sorted(_WORDS))}")
        for word in ("name", "op", "module", "source"):
            _need(isinstance(entry[word], str), f"the {word} of a node is {entry[word]!r:.60}, no text")
        for word in ("inputs", "shape"):
            _need(isinstance(entry[word], list), f"the {word} of {entry['name']!r:.80} are no list")
        node = Node(**{**entry, "inputs": tuple(entry["inputs"]), "shape": tuple(entry["shape"])})
        _need(node.name != "" and node.name not in seen, f"two nodes are named {node.name!r:.80}, or one has no name")
        whole = all(type(size) is int and size >= 0 for size in entry["shape"])
        _need(whole, f"the shape of {node.name!r:.80} is {node.shape!r:.60}")
        _need(isinstance(entry["attributes"], dict), f"the attributes of {node.name!r:.80} are no object")
        _check_inputs(node, seen)
        _check_attributes(node, seen)
        nodes.append(node)
        seen[node.name] = node
    return nodes


def _check_inputs(node: Node, seen: Mapping[str, Node]) -> None:
    """Inputs are nodes before this one, as many as the operation takes, and none that it needs is left out."""
    inputs: tuple[Any, ...] = node.inputs
    for name in inputs:
        there = name is None or (isinstance(name, str) and name in seen)
        _need(there, f"{node.name!r:.80} reads {name!r:.80}, which is no node before it")
    _need(node.op not in LEAVES or not node.inputs, f"{node.name!r:.80} is given, and yet is computed from others")
    known = operation_of(node)
    if known is None:
        return
    operation = known[0]
    try:
        names = operation.argument_names(len(node.inputs))
    except ValueError as error:
        raise UnsoundError(f"{node.name!r:.80} does not fit its operation ({error})") from error
    given = {name for name, source in zip(names, node.inputs, strict=True) if source is not None}
    needed = [] if operation.variadic else [a.name for a in operation.arguments if not a.optional]
    missing = [name for name in needed if name not in given]
    _need(not missing, f"{node.name!r:.80} is a {operation.name} without its {', '.join(missing)}")


def _check_attributes(node: Node, seen: Mapping[str, Node]) -> None:
    """Settings are those of the operation; another output names its first, which has the same operation and inputs."""
    attributes = node.attributes
    first = attributes.get("of")
    if first is not None:
        there = isinstance(first, str) and first in seen and "of" not in seen[first].attributes
        _need(there, f"{node.name!r:.80} is an output of {first!r:.80}, which is no operation before it")
        same = (seen[first].op, seen[first].inputs) == (node.op, node.inputs)
        _need(same and "output" in attributes, f"{node.name!r:.80} is no output of {first!r:.80}, which differs")
    _need(isinstance(attributes.get("output", ""), str), f"the output that {node.name!r:.80} is has no name")
    _need(isinstance(attributes.get("recomputed", False), bool), f"{node.name!r:.80} is recomputed, or is not")
    known = operation_of(node)
    if known is None:
        return
    operation, settings = known
    allowed = {attribute.name for attribute in operation.attributes}
    strange = [name for name in settings if name not in allowed]
    _need(not strange, f"{node.name!r:.80} has a setting {_strangers(strange, ())}, which {operation.name} has not")


def _point(made: Mapping[str, Any], known: Mapping[str, Node]) -> None:
    """Inputs, output and loss are nodes of these kinds."""
    for name in made["inputs"]:
        _need(name in known and known[name].op == "input", f"its input {name!r:.80} is no input")
    output, loss = made["output"], made["loss"]
    _need(isinstance(output, str) and (not output or output in known), f"its output {output!r:.80} is no node")
    if loss is not None:
        _need(isinstance(loss, str) and loss in known, f"its loss {loss!r:.80} is no node")
        _need(known[loss].shape == (), f"its loss {loss!r:.80} is no single number")
    _need(loss is not None or not made["gradients"], "it has gradients, and no loss")


def _update(entry: Any, known: Mapping[str, Node], left: dict[str, Array]) -> Update | None:
    if entry is None:
        return None
    _need(isinstance(entry, dict) and set(entry) == {"parameters", "clipping"}, "its update is none")
    _need(isinstance(entry["parameters"], dict), "the parameters of its update are no object")
    steps = {}
    for name, step in entry["parameters"].items():
        _need(name in known and known[name].op == "parameter", f"its update changes {name!r:.80}, no parameter")
        steps[name] = _step(name, step, known[name].shape, left)
    return Update(steps, _clipping(entry["clipping"]))


def _step(name: str, entry: Any, shape: tuple[int, ...], left: dict[str, Array]) -> Step:
    place = f"the step of {name!r:.80}"
    _need(isinstance(entry, dict) and set(entry) == {"rule", "hyper", "states", "step"}, f"{place} is none")
    rule, hyper, count = entry["rule"], entry["hyper"], entry["step"]
    _need(isinstance(rule, str), f"{place} has no rule")
    _need(type(count) is int and 1 <= count < 1 << 53, f"{place} has number {count!r:.40}")
    _need(isinstance(hyper, dict) and all(_is_number(v) for v in hyper.values()), f"{place} has settings of no number")
    states = {s: _taken(left, f"state/{s}/{name}", shape, "f") for s in _texts(entry["states"], "states")}
    if rule in OPTIMISERS:
        allowed = {*COMMON, *OPTIMISERS[rule].defaults}
        _need(set(hyper) <= allowed, f"{place} has a setting {_strangers(hyper, allowed)}, which {rule} has not")
        _need(set(states) == set(OPTIMISERS[rule].states), f"{place} does not remember what {rule} does")
    return Step(rule, hyper, states, count)


def _clipping(entry: Any) -> Clipping | None:
    if entry is None:
        return None
    _need(isinstance(entry, dict) and set(entry) == {"kind", "limit", "norm"}, "its clipping is none")
    kind, limit, norm = entry["kind"], entry["limit"], entry["norm"]
    _need(kind in ("norm", "value") and _is_number(limit) and limit > 0, "its clipping has no kind and limit")
    good = norm is None if kind == "value" else _is_number(norm) and not norm < 0
    _need(good, f"its clipping by {kind} has norm {norm!r:.40}")
    return Clipping(kind, float(limit), None if norm is None else float(norm))


def _pixels(entry: Any, made: Mapping[str, Any], known: Mapping[str, Node], left: dict[str, Array]) -> Pixels | None:
    if entry is None:
        return None
    _need(isinstance(entry, dict) and set(entry) == {"mean", "std"}, "its pixels are none")
    _need(len(made["inputs"]) > 0, "it has pixels, and no input")
    shape = known[made["inputs"][0]].shape
    values = _taken(left, "pixels", shape, "u")
    _need(values.dtype == np.uint8 and len(shape) == 4, f"its pixels are {values.dtype} of shape {shape}")
    for word in ("mean", "std"):
        numbers = entry[word]
        good = isinstance(numbers, list) and len(numbers) == shape[1] and all(_is_number(n) for n in numbers)
        _need(good and all(math.isfinite(n) for n in numbers), f"its {word} is not one number a channel")
    _need(all(n > 0 for n in entry["std"]), "its std is not above 0")
    return Pixels(values, tuple(map(float, entry["mean"])), tuple(map(float, entry["std"])))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

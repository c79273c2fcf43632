"""What a recording is asked for, checked before and against the graph; each refusal names the value and the remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pellucid.errors import UsageError, did_you_mean
from pellucid.explain.graph import bound
from pellucid.explain.node import Clipping

if TYPE_CHECKING:
    from pellucid.explain.graph import Program


def check_request(label: Any, loss: Any, optimizer: Any, clip: Any) -> None:
    """Refuse a step without gradients, and a clipping without a step."""
    if optimizer is not None and label is None and loss is None:
        raise UsageError("a step of the optimizer needs gradients: give record() a label or a loss as well")
    if clip is not None and optimizer is None:
        raise UsageError(f"clip={dict(clip)} says how gradients are clipped before a step: give record() the optimizer")


def check_labels(labels: Any, logits: tuple[int, ...]) -> Any:
    """Labels that are one class number for each row of the logits (N, C), as they came; else a UsageError."""
    if len(logits) != 2:
        raise UsageError(f"cross-entropy is of logits (N, classes), and these have shape {logits}: give a loss")
    kind = str(labels.dtype).removeprefix("torch.")
    if "int" not in kind:
        raise UsageError(f"the label is of type {kind}: give class numbers from 0 to {logits[1] - 1}, or a loss")
    if tuple(labels.shape) != logits[:1]:
        raise UsageError(
            f"the label has shape {tuple(labels.shape)}, but there are {logits[0]} images: give one class for each"
        )
    wrong = [int(label) for label in labels.tolist() if not 0 <= label < logits[1]]
    if wrong:
        classes = logits[1]
        raise UsageError(f"label {wrong[0]} is none of the model's {classes} classes: give one from 0 to {classes - 1}")
    return labels


def clipping_of(clip: Mapping[str, Any]) -> Clipping:
    """How gradients are clipped. Raises UsageError for anything but one positive limit of a norm or a value."""
    if len(clip) != 1 or next(iter(clip)) not in {"norm", "value"}:
        wrong = next((name for name in clip if name not in {"norm", "value"}), "")
        hint = f" ({did_you_mean(wrong, ['norm', 'value'])})" if wrong else ""
        raise UsageError(f'clip is {dict(clip)}: write {{"norm": limit}} or {{"value": limit}}{hint}')
    (kind, limit), *_ = clip.items()
    if not (isinstance(limit, (int, float)) and math.isfinite(limit) and limit > 0):
        raise UsageError(f"clip is {dict(clip)}: the limit of a gradient's {kind} is a number above 0")
    return Clipping(kind, float(limit))


def check_inputs(program: Program, arguments: Sequence[Any], training: bool, loaded: bool) -> None:
    """Refuse images of another shape or type than the graph is for: run on them, it reads outside its memory."""
    wanted = [node.meta["val"] for node, kind, _ in program.inputs if kind == "USER_INPUT"]
    if len(wanted) != len(arguments):
        raise UsageError(f"the model takes {len(wanted)} tensors, but {len(arguments)} are given")
    for want, given in zip(wanted, arguments, strict=True):
        sizes = tuple(size if isinstance(size, int) else None for size in want.shape)
        fits = len(sizes) == given.ndim and all(w in (None, g) for w, g in zip(sizes, given.shape, strict=True))
        if not fits or want.dtype != given.dtype:
            shape = ", ".join("any" if size is None else str(size) for size in sizes)
            raise UsageError(
                f"the images have shape {tuple(given.shape)} ({given.dtype}), but the program was exported for "
                f"({shape}) ({want.dtype}): give those, or export it for these"
            )
    if loaded:
        flags = {
            bool(value)
            for stage in program.steps
            if hasattr(stage.target, "_schema")
            for name, value in bound(stage.target._schema, stage.args, stage.kwargs).items()
            if name in {"train", "training"}
        }
        if flags and training not in flags:
            modes = ("training", "evaluation") if training else ("evaluation", "training")
            raise UsageError(
                f"the {modes[0]} pass is asked for, but the program was exported in {modes[1]} mode, which is fixed in "
                f"it: pass training={not training}, or export the model in {modes[0]} mode"
            )

"""Why a model could not be run or exported: which of its modules was at work, at which line, and what was said."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType


def sentence(error: BaseException) -> str:
    """The first line of what an error says, without a full stop at its end; its class where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def module_at_fault(error: BaseException, names: Mapping[int, str]) -> tuple[str, Any] | None:
    """The name and the module whose method was running innermost when the error was raised; `names` go by id."""
    found = None
    for frame, _ in _frames(error):
        variables = frame.f_code.co_varnames
        owner = frame.f_locals.get(variables[0]) if frame.f_code.co_argcount else None
        if id(owner) in names:
            found = (names[id(owner)], owner)
    return found


def line_at_fault(error: BaseException, *libraries: str) -> str:
    """The innermost line, "model.py:12", outside the folders given; "" where all lie within."""
    found = ""
    for frame, line in _frames(error):
        file = frame.f_code.co_filename
        if not file.startswith((*libraries, "<")):
            found = f"{Path(file).name}:{line}"
    return found


def misfit(
    error: BaseException, names: Mapping[int, str], images: Sequence[Any], image: Any, *libraries: str
) -> UsageError:
    """The refusal of images that the model fails on by itself; `image` is the shape it says it is for, if it does."""
    fitting = f"shape (N, {', '.join(map(str, image))})" if isinstance(image, tuple) else "the shape it was built for"
    given = " and ".join(map(described, images))
    return UsageError(
        f"the model does not take images of shape {given}: {place(error, names, *libraries)}{sentence(error)}; "
        f"give images of {fitting}, in the type of its weights"
    )


def loss_misfit(error: BaseException, names: Mapping[int, str], tensors: Sequence[Any], *libraries: str) -> UsageError:
    """The refusal of a loss that fails on the logits, and the label if there is one."""
    logits, *labels = map(described, tensors)
    given = f"logits of shape {logits}" + "".join(f" and a label of shape {label}" for label in labels)
    return UsageError(
        f"the loss does not take {given}: {place(error, names, *libraries)}{sentence(error)}; give it what it takes"
    )


def unexportable(error: BaseException, names: Mapping[int, str], what: str, *libraries: str) -> UsageError:
    """The refusal of a model that runs but cannot be exported."""
    depends = "data-dependent" in str(error) or "unbacked" in str(error).lower()
    remedy = (
        "replace the decision on a tensor's value by torch.where, or by one on its shape"
        if depends
        else "let forward use tensors and torch's operations alone"
    )
    return UsageError(
        f"torch.export cannot export {what}: {place(error, names, *libraries)}{sentence(error)}; {remedy}"
    )


def described(tensor: Any) -> str:
    """A tensor's shape and type: "(2, 3) of float32"."""
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def place(error: BaseException, names: Mapping[int, str], *libraries: str) -> str:
    """Where it happened, as the beginning of a clause: "in fc1 (Linear, model.py:12): "."""
    found, line = module_at_fault(error, names), line_at_fault(error, *libraries)
    if found is None or not found[0]:
        return f"at {line}: " if line else ""
    return f"in {found[0]} ({type(found[1]).__name__}{', ' + line if line else ''}): "


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next

"""One forward pass of any module, watched: which submodule was called with what shapes, and where it broke.

Hooks stand on that module alone and are gone afterwards. The module's mode, its buffers and torch's random numbers are
as they were before.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from pellucid.nets.sizes import Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Images in the batch that is run. Two, so that a batch axis which went astray shows.
BATCH = 2


@dataclass(slots=True)
class Call:
    """One call of one submodule. Shapes are those of the first tensor in and out, batch axis included."""

    name: str
    module: nn.Module
    input: Shape | None
    output: Shape | None = None


@dataclass(slots=True)
class Watched:
    """A forward pass: its calls in the order in which they began, those under way, and how it ended."""

    model: nn.Module
    calls: list[Call] = field(default_factory=list)
    open: list[Call] = field(default_factory=list)
    output: Any = None
    error: Exception | None = None

    def begin(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A submodule is called."""
        call = Call(name, module, first_shape((args, kwargs)))
        self.calls.append(call)
        self.open.append(call)

    def end(self, output: Any) -> None:
        """The submodule called last gives its output."""
        self.open.pop().output = first_shape(output)


def first_shape(value: Any) -> Shape | None:
    """The shape of the first tensor in nested tuples, lists and dictionaries."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return next((shape for shape in map(first_shape, inner) if shape is not None), None)


def watch(model: nn.Module, image: Shape | torch.Tensor) -> Watched:
    """Run `model` once, in evaluation mode, on a batch of images of shape `image` (C, H, W), or on a tensor as it is.

    What the model raises is kept in `error`, not raised. The run is where its weights are, be it the meta device.
    """
    if any(is_lazy(weight) for weight in model.parameters()):
        # A first pass would settle the shapes of these for good.
        model = copy.deepcopy(model)
    weight = next(iter(model.parameters()), torch.empty(0))
    batch = _batch(model, image).to(weight.device)
    watched = Watched(model)
    state = (same_buffers(model), torch.random.fork_rng(devices=devices(model)), torch.no_grad(), _evaluating(model))
    with contextlib.ExitStack() as stack:
        for kept in (*state, _hooked(model, watched)):
            stack.enter_context(kept)
        try:
            watched.output = model(batch)
        except Exception as error:  # noqa: BLE001  what any model raises is the answer
            watched.error = error
    return watched


def devices(model: nn.Module) -> list[torch.device]:
    """The CUDA devices that hold weights of `model`."""
    return list({weight.device for weight in model.parameters() if weight.device.type == "cuda"})


def _batch(model: nn.Module, image: Shape | torch.Tensor) -> torch.Tensor:
    if isinstance(image, torch.Tensor):
        return image.detach()
    kind = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)
    return torch.zeros(BATCH, *image, dtype=kind)


@contextlib.contextmanager
def _hooked(model: nn.Module, watched: Watched) -> Iterator[None]:
    handles = []
    try:
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(_before(watched, name), with_kwargs=True))
            handles.append(module.register_forward_hook(lambda _module, _args, output: watched.end(output)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _before(watched: Watched, name: str) -> Any:
    return lambda module, args, kwargs: watched.begin(name, module, args, kwargs)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    # Set one by one: a model may override train(), and the modes of its parts may differ.
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def same_buffers(model: nn.Module) -> Iterator[None]:
    """The buffers of `model` as they were before, whatever is done inside: the statistics of its normalisations."""
    kept = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, values in kept:
                setattr(module, name, buffer)
                buffer.copy_(values)

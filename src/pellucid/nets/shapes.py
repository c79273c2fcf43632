"""Why a network does not take an image: which layer, what came in, what it expected, the formula, the remedy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import torch
from torch import nn

from pellucid.nets.build import is_notation
from pellucid.nets.describe import describe, settings_of, windows
from pellucid.nets.network import Network
from pellucid.nets.notation import read
from pellucid.nets.plan import plan, whole_image
from pellucid.nets.sizes import Shape, ShapeError, by, formula, size_after
from pellucid.nets.watch import BATCH, Call, Watched, watch

__all__ = ["ShapeError", "check"]

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_POOL = (nn.MaxPool2d, nn.AvgPool2d)
#: Characters of torch's own sentence that are passed on.
SHORT = 200


def check(model: nn.Module, image: Shape | torch.Tensor, classes: int | None = None) -> None:
    """Raise ShapeError, with the whole explanation, unless `model` gives a row of logits for each image.

    `image` is (C, H, W), of which a small batch is made; or a tensor, which is given to the model as it is. With
    `classes` the logits must be that many. The model is run in evaluation mode, and left as it was.
    """
    rebuilt = ""
    if not isinstance(image, torch.Tensor):
        image = whole_image(image)
        if isinstance(model, Network) and model.image not in {None, image}:
            if is_notation(model.text):
                # As written first: what does not fit can then be shown, and mended, in the notation's own words.
                plan(read(model.text), image, model.classes)
            built = by(model.image or ())
            rebuilt = f"the network was built for images of {built}; give it those, or build it for {by(image)}"
    watched = watch(model, image)
    if watched.error is not None:
        raise ShapeError(explain(watched, rebuilt)) from watched.error
    rows = image.shape[0] if isinstance(image, torch.Tensor) else BATCH
    if sentence := _no_logits(watched, rows, classes):
        raise ShapeError(sentence)


def explain(watched: Watched, remedy: str = "") -> str:
    """What went wrong in a pass that broke, and the remedy: the one given, else the one that the numbers suggest."""
    what, suggested = _broken(watched)
    remedy = remedy or suggested
    return f"{what}: {remedy}" if remedy else what


def _broken(watched: Watched) -> tuple[str, str]:
    """What went wrong in the layer under way, and the remedy; torch's own sentence where nothing better is known."""
    call = watched.open[-1] if watched.open else Call("", watched.model, None)
    place = call.name or f"the network itself ({type(call.module).__name__})"
    for kinds, reason in _EXPLAINED:
        if isinstance(call.module, kinds) and call.input is not None and (found := reason(call, watched)):
            return f"{place}: {found[0]}", found[1]
    if (viewed := _view(watched)) is not None:
        return f"{place}: {viewed[0]}", viewed[1]
    sentence = " ".join(str(watched.error).split()) or type(watched.error).__name__
    sentence = sentence if len(sentence) <= SHORT else sentence[:SHORT] + "…"
    got = f" got an input of {by(call.input)} and" if call.input else ""
    return f"{place}{got} failed with {type(watched.error).__name__}: {sentence}", ""


def _linear(call: Call, watched: Watched) -> tuple[str, str] | None:
    module, shape = call.module, call.input
    assert isinstance(module, nn.Linear)
    assert shape
    expected, got = module.in_features, shape[-1]
    if got == expected:
        return None
    if len(shape) == 2 and shape[0] * got == expected:
        # Without its batch axis the map has three axes; the rows, which hold as many numbers, have two.
        maps = (done.output for done in _outputs(watched) if done.output and len(done.output) == 3)
        source = next((output for output in maps if math.prod(output) == expected), shape)
        whole = f"{expected} = {by(source)}"
        return (
            f"got {shape[0]} rows of {got} where it expects rows of {whole}",
            "the batch axis seems to be missing; give N×C×H×W, for one image x.unsqueeze(0)",
        )
    if len(shape) > 2 and math.prod(shape[1:]) == expected:
        remedy = "the map was not flattened; write x = torch.flatten(x, 1) before it"
        return f"got maps of {by(shape[1:])} where it expects rows of {expected} = {by(shape[1:])}", remedy
    bias = "" if len(list(module.parameters())) == 2 else ", bias=False"
    if len(shape) > 3:
        width = math.prod(shape[1:])
        return (
            f"got maps of {by(shape[1:])} where it expects rows of {expected}",
            f"write x = torch.flatten(x, 1) before it, and nn.Linear({width}, {module.out_features}{bias})",
        )
    linear = f"write nn.Linear({got}, {module.out_features}{bias})"
    if len(shape) == 3:
        return f"got rows of {got} in {by(shape)}, expects {expected}", linear
    meant = _likely(expected, shape, watched)
    return f"got rows of {_factors(shape, watched)}, expects {expected}{meant}", linear


def _outputs(watched: Watched) -> list[Call]:
    """Finished calls, the latest first."""
    return [call for call in reversed(watched.calls) if call.output]


def _last_map(watched: Watched, numbers: int) -> Shape | None:
    """The latest map (C, H, W) that flattens to `numbers`."""
    maps = (call.output[1:] for call in _outputs(watched) if call.output and len(call.output) == 4)
    return next((shape for shape in maps if math.prod(shape) == numbers), None)


def _factors(shape: Shape, watched: Watched) -> str:
    """576 = 16·6·6, where the map it comes from is known."""
    source = _last_map(watched, shape[-1])
    return f"{shape[-1]} = {'·'.join(map(str, source))}" if source else str(shape[-1])


def _likely(expected: int, shape: Shape, watched: Watched) -> str:
    """The square map that `expected` numbers would be, at the channels of the map that came: 400 = 16·5·5."""
    source = _last_map(watched, shape[-1])
    if source is None or expected % source[0] or expected == source[0]:
        return ""
    side = math.isqrt(expected // source[0])
    return f" = {source[0]}·{side}·{side}" if source[0] * side * side == expected else ""


def _conv(call: Call, _watched: Watched) -> tuple[str, str] | None:
    module, shape = call.module, call.input
    assert isinstance(module, _CONV)
    assert shape
    axes = len(module.kernel_size)
    if len(shape) not in {axes + 1, axes + 2}:
        return f"got {by(shape)}, expects N×C×{'×'.join('DHW'[-axes:])}", "give it a batch of maps, not flattened ones"
    C = shape[-axes - 1]
    if module.in_channels != C:
        what = f"got {C} channel{'s' * (C != 1)} in {by(shape)}, expects {module.in_channels}"
        if shape[-1] == module.in_channels:
            order = "0, 3, 1, 2" if len(shape) == 4 else "2, 0, 1"
            return what, f"the channels stand last; write x.permute({order}) before it"
        if len(shape) == axes + 1 and module.in_channels == 1:
            return what, "the channel axis is missing; write x.unsqueeze(1) before it"
        settings = settings_of(module).split(", ", 1)[1]
        if C % module.groups:
            return what, f"and groups={module.groups} does not divide {C}"
        return what, f"write nn.{_plain(module)}({C}, {settings})"
    return _too_small(call) if isinstance(module, nn.Conv2d) else None


def _plain(module: nn.Module) -> str:
    return next(kind.__name__ for kind in type(module).__mro__ if kind.__module__.startswith("torch.nn"))


def _too_small(call: Call, _watched: Watched | None = None) -> tuple[str, str] | None:
    module, shape = call.module, call.input
    assert isinstance(module, (nn.Conv2d, *_POOL))
    assert shape
    if len(shape) not in {3, 4}:
        return f"got {by(shape)}, expects N×C×H×W", "give it a batch of maps, not flattened ones"
    for size, (kernel, stride, padding, dilation) in zip(shape[-2:], windows(module), strict=True):
        if size_after(size, kernel, stride=stride, padding=padding, dilation=dilation) < 1:
            worked = formula(size, kernel, stride=stride, padding=padding, dilation=dilation)
            kernels = by(tuple(window[0] for window in windows(module)))
            word = "kernel" if isinstance(module, nn.Conv2d) else "window"
            what = f"a {kernels} {word} does not fit the {by(shape[-2:])} map that reaches it: {worked}"
            fix = f"kernel_size={size}" + (f" or padding={(kernel - 1) // 2}" if isinstance(module, nn.Conv2d) else "")
            return what, f"write {fix}, pool less before it, or use larger images"
    return None


def _norm(call: Call, _watched: Watched) -> tuple[str, str] | None:
    module, shape = call.module, call.input
    assert isinstance(module, _NORM)
    assert shape
    axes = int(type(module).__name__[-2]) if type(module) in _NORM else 0
    fitting = {0: {2, 3, 4, 5}, 1: {2, 3}}.get(axes, {axes + 2})
    if len(shape) not in fitting:
        right = "BatchNorm1d" if len(shape) == 2 else f"BatchNorm{len(shape) - 2}d"
        got = f"got an input of {len(shape)} axes, {by(shape)}, and expects {' or '.join(map(str, sorted(fitting)))}"
        return got, f"write nn.{right}({shape[1]})" if len(shape) in {2, 4, 5} else "give it a batch"
    if shape[1] != module.num_features:
        what = f"got {shape[1]} channels in {by(shape)}, expects {module.num_features}"
        return what, f"write nn.{_plain(module)}({shape[1]})"
    return None


def _view(watched: Watched) -> tuple[str, str] | None:
    """A view or reshape to a fixed number per image that the map does not have."""
    match = re.search(r"shape '\[(-?\d+), (\d+)\]' is invalid for input of size (\d+)", str(watched.error))
    last = next(iter(_outputs(watched)), None)
    if match is None or last is None or math.prod(last.output or ()) != int(match[3]):
        return None
    wanted, shape = int(match[2]), (last.output or ())[1:]
    takers = [module for module in watched.model.modules() if isinstance(module, nn.Linear)]
    taker = next((module for module in takers if module.in_features == wanted), None)
    numbers = math.prod(shape)
    linear = f", and nn.Linear({numbers}, {taker.out_features}) after it" if taker else ""
    gives = f"{numbers} = {'·'.join(map(str, shape))}"
    return (
        f"a view to rows of {wanted} does not fit what {last.name} gives, {gives} an image",
        f"write torch.flatten(x, 1){linear}",
    )


def _no_logits(watched: Watched, rows: int, classes: int | None) -> str:
    """What is wrong with the output; empty where it is (N, classes)."""
    wanted = f"{rows}×{classes if classes is not None else 'classes'}"
    need = f"a batch of {rows} must give one tensor of {wanted}, a row of logits for each image"
    output = watched.output
    if not isinstance(output, torch.Tensor):
        return f"the network gives a {type(output).__name__}: {need}; return the logits alone"
    shape = tuple(output.shape)
    if len(shape) == 2 and shape[0] == rows and classes in {None, shape[1]}:
        return ""
    last = next((call for call in _outputs(watched) if call.output == shape and not list(call.module.children())), None)
    name = f"{last.name} ({describe(last.module)})" if last and last.name else "the network"
    given = f"{name} gives {by(shape) or 'a single number'}, but {need}"
    if len(shape) != 2:
        if len(shape) < 2:
            return f"{given}: the batch axis was flattened away; write torch.flatten(x, 1), not torch.flatten(x)"
        return f"{given}: end with nn.Flatten() and nn.Linear({math.prod(shape[1:])}, {classes or 'classes'})"
    if shape[0] != rows:
        return f"{given}: a view or reshape mixed the images up; write torch.flatten(x, 1), which keeps the batch axis"
    if isinstance(watched.model, Network):
        return f"{given}: build it with classes={classes}"
    if last and isinstance(last.module, nn.Linear):
        return f"{given}: write nn.Linear({last.module.in_features}, {classes})"
    return f"{given}: end with nn.Linear({shape[1]}, {classes})"


_Explain = Callable[[Call, Watched], tuple[str, str] | None]

_EXPLAINED: tuple[tuple[tuple[type[nn.Module], ...], _Explain], ...] = (
    ((nn.Linear,), _linear),
    (_CONV, _conv),
    (_POOL, _too_small),
    (_NORM, _norm),
)

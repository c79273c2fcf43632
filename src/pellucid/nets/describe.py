"""A module in words: its settings on one line, its window, and the size formula of one call."""

from __future__ import annotations

import inspect
import re

from torch import nn

from pellucid.nets.layers import SameConv2d, SoftPool2d
from pellucid.nets.sizes import Padding, Shape, both_axes, formula, transposed_formula
from pellucid.nets.watch import Call

_WINDOWED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, SoftPool2d)


def describe(module: nn.Module) -> str:
    """A module on one line, its own settings only: `Conv2d(1, 6, kernel_size=(5, 5))`."""
    return f"{type(module).__name__}({settings_of(module)})"


def settings_of(module: nn.Module) -> str:
    """What stands between the parentheses of a module's own description, less what is at its default."""
    settings = re.split(r", (?![^(]*\))", str(module.extra_repr()).replace("\n", " "))
    try:
        known = inspect.signature(type(module)).parameters
    except (TypeError, ValueError):  # a class that hides its signature
        return ", ".join(settings)
    usual = {
        f"{name}={value}" for name, item in known.items() for value in (item.default, (item.default, item.default))
    }
    return ", ".join(setting for setting in settings if setting not in usual)


def size_formula(call: Call) -> str:
    """The size formula of a call, filled in; empty where there is none or it would not be the whole truth.

    A formula whose result is not the size that came out (a pool that rounds up, for one) is not shown.
    """
    module = call.module
    if call.input is None or len(call.input) < 3:
        return ""
    if isinstance(module, nn.ConvTranspose2d):
        worked = _transposed(module, call.input)
    elif isinstance(module, _WINDOWED):
        worked = [
            formula(size, kernel, stride=stride, padding=padding, dilation=dilation)
            for size, (kernel, stride, padding, dilation) in zip(call.input[-2:], windows(module), strict=True)
        ]
    else:
        return ""
    if call.output is not None and any(
        not text.endswith(f"= {size}") for text, size in zip(worked, call.output[-2:], strict=True)
    ):
        return ""
    return both_axes(*worked)


def _transposed(module: nn.ConvTranspose2d, shape: Shape) -> list[str]:
    assert not isinstance(module.padding, str)
    settings = zip(
        module.kernel_size, module.stride, module.padding, module.dilation, module.output_padding, strict=True
    )
    return [
        transposed_formula(size, kernel, stride=stride, padding=padding, dilation=dilation, output_padding=extra)
        for size, (kernel, stride, padding, dilation, extra) in zip(shape[-2:], settings, strict=True)
    ]


def windows(module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | SoftPool2d) -> list[tuple[int, int, Padding, int]]:
    """Kernel, stride, padding and dilation of a module with a window, for height and for width."""
    kernel, stride = pair(module.kernel_size), pair(module.stride)
    dilation = (1, 1) if isinstance(module, (nn.AvgPool2d, SoftPool2d)) else pair(module.dilation)
    padding: tuple[Padding, Padding]
    if isinstance(module, SameConv2d):
        padding = ("same", "same")
    elif isinstance(module.padding, str):
        word: Padding = "same" if module.padding == "same" else "valid"
        padding = (word, word)
    else:
        padding = pair(module.padding)
    return list(zip(kernel, stride, padding, dilation, strict=True))


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """One number for both axes, or the two."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])

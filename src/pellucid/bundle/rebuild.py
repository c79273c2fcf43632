"""The network that a bundle's configuration names, built only when the weights beside it are its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn
from torch.overrides import TorchFunctionMode

from pellucid import nets
from pellucid.data.preprocess import Preprocess
from pellucid.errors import DataError, UsageError
from pellucid.nets.build import is_notation
from pellucid.nets.network import Network
from pellucid.nets.notation import read
from pellucid.nets.plan import plan

#: The most numbers that a layer of a bundle's network may make of one picture: a gibibyte in float32.
LARGEST_MAP = 1 << 28


def built(
    network: str, preprocess: Preprocess, classes: tuple[str, ...], folder: Path, arrays: Mapping[str, NDArray[Any]]
) -> nn.Module:
    """The network that a bundle's configuration names, if the arrays are its weights."""
    image = (preprocess.channels, *preprocess.size)
    try:
        # First without any memory: a few words may name a network of gigabytes, and these weights may be a few numbers.
        with torch.device("meta"), _NothingDrawn():
            empty = nets.build(network, classes=len(classes), image=image)
            refuse_misfit(empty, arrays, folder / "model.safetensors")
            _refuse_large_maps(empty.eval(), image, len(classes), folder / "config.json")
        return nets.build(network, classes=len(classes), image=image)
    except UsageError as error:
        raise DataError(f"{folder / 'config.json'}: its network cannot be built: {error}") from error


def refuse_misfit(model: nn.Module, arrays: Mapping[str, NDArray[Any]], place: Path) -> None:
    """Raise DataError where the arrays are not the model's own: every name and every shape."""
    own = model.state_dict()
    missing, extra = sorted(own.keys() - arrays.keys()), sorted(arrays.keys() - own.keys())
    if missing or extra:
        raise DataError(f"{place}: the weights are of another network: missing {missing[:3]}, unexpected {extra[:3]}")
    for name, tensor in own.items():
        if tuple(arrays[name].shape) != tuple(tensor.shape):
            raise DataError(f"{place}: {name} is {arrays[name].shape}, and the network's is {tuple(tensor.shape)}")


class _NothingDrawn(TorchFunctionMode):
    """Leaves first weights undrawn: of tensors without memory, torch would import half its compiler for it."""

    def __torch_function__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The call itself, unless it draws."""
        if getattr(func, "__name__", "") in {"normal_", "uniform_"}:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _refuse_large_maps(empty: Network, image: tuple[int, int, int], classes: int, place: Path) -> None:
    """Refuse a network, built without memory, of which one picture would fill it: few weights can make large maps."""

    def refuse(name: str, numbers: int) -> None:
        if numbers > LARGEST_MAP:
            raise DataError(
                f"{place}: of one picture its network makes {numbers:,} numbers in {name}, and {LARGEST_MAP:,} is the "
                "most: take another copy, or train again"
            )

    if is_notation(empty.text):
        for layer in plan(read(empty.text), image, classes):
            refuse(layer.name, math.prod(layer.after))
        return
    # The others never enlarge a map, so that most need no pass, at which torch would import half its compiler.
    channels = max(parameter.shape[0] for parameter in empty.parameters() if parameter.ndim in {2, 4})
    if channels * math.prod(image[1:]) <= LARGEST_MAP:
        return

    def watch(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            refuse(f"a {type(module).__name__}", output.numel())

    for module in empty.modules():
        module.register_forward_hook(watch)
    with torch.inference_mode():
        empty(torch.empty(1, *image))

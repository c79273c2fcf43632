"""Fine-tuning: lower layers held still, or moved more slowly than those above them.

The lower layers of a trained network see edges and textures that serve any pictures, and the upper ones what its own
pictures were about (Yosinski et al., "How transferable are features in deep neural networks?", 2014). Few new pictures
need not relearn the first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import nn

from pellucid.bundle.fit import heads
from pellucid.errors import UsageError

#: Modules that only hold others in a row, so that depth counts what is in them.
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Group(NamedTuple):
    """Parameters that share a learning rate."""

    parameters: list[nn.Parameter]
    multiplier: float
    """Of the run's learning rate."""


@dataclass
class Unit:
    """A step of depth: one layer or block, with the normalisation behind it."""

    names: list[str] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)
    parameters: list[nn.Parameter] = field(default_factory=list)


def units(model: nn.Module) -> list[Unit]:
    """A network's layers and blocks that have parameters, from the first to the last, in order of definition.

    Modules that only hold others in a row are looked into, so VGG-16 has 16 units and ResNet-18 has ten: the stem,
    eight blocks, the classifier. A normalisation counts to the layer before it, and auxiliary heads to the classifier.
    """
    found: list[Unit] = []
    auxiliary = Unit()
    for name, module in _parts(model, ""):
        own = list(module.parameters(recurse=module is not model))
        if name.startswith("aux"):
            unit = auxiliary
        elif _normalises(module) and found:
            unit = found[-1]
        elif own:
            unit = Unit()
            found.append(unit)
        else:
            continue
        unit.names.append(name)
        unit.modules.append(module)
        unit.parameters += own
    if found and auxiliary.names:
        found[-1].names += auxiliary.names
        found[-1].modules += auxiliary.modules
        found[-1].parameters += auxiliary.parameters
    return found


def freeze(model: nn.Module, what: str | int) -> list[str]:
    """Hold a part of the network still: `head` freezes all but the classifiers, a number the first so many units.

    Returns the names of the frozen parameters. They get no gradient, and the optimiser must be made afterwards; for the
    statistics of frozen normalisations see `frozen_modules`. Raises UsageError where nothing would be left to train.
    """
    if what == "head":
        tops = heads(model)
        kept = {f"{top}.{name}" for top in tops for name, _ in model.get_submodule(top).named_parameters()}
        if not kept:
            raise UsageError("--freeze head: the network has no classifier to train; give a number of layers instead")
        names = [name for name, _ in model.named_parameters() if name not in kept]
    else:
        number, all_units = _number(what), units(model)
        if not 0 <= number < len(all_units):
            raise UsageError(
                f"--freeze {number}: the network has {len(all_units)} layers and blocks with weights, "
                f"so at most {len(all_units) - 1} can be frozen; or write --freeze head"
            )
        still = {id(parameter) for unit in all_units[:number] for parameter in unit.parameters}
        names = [name for name, parameter in model.named_parameters() if id(parameter) in still]
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return names


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The normalisations with running statistics that lie in a frozen part of the network.

    Freezing a weight does not keep batch statistics from moving: in training mode a normalisation takes each batch's
    own, and averages them. So after every `model.train()` a training loop puts these back: `module.eval()` for each.
    They then use the statistics they came with, as they will when pictures are predicted.
    """
    still: list[nn.Module] = []
    for unit in units(model):
        whole = bool(unit.parameters) and not any(p.requires_grad for p in unit.parameters)
        for module in unit.modules:
            for inner in [model] if module is model else module.modules():
                own = list(inner.parameters(recurse=False))
                # One without a scale of its own goes by the layers around it.
                frozen = not any(p.requires_grad for p in own) if own else whole
                if getattr(inner, "running_mean", None) is not None and frozen:
                    still.append(inner)
    return still


def depth_groups(model: nn.Module, factor: float) -> list[Group]:
    """The trainable parameters by depth, each group with `factor` to the power of its distance from the top.

    The classifier has 1, the unit below it `factor`, the next `factor`² and so on (discriminative fine-tuning: Howard
    and Ruder, "Universal language model fine-tuning for text classification", 2018, with 1/2.6). Frozen units count for
    the distance and are left out. Raises UsageError for a factor that is not above 0 and at most 1.
    """
    if not 0 < factor <= 1:
        raise UsageError(f"--lr-decay-by-depth {factor:g}: expected a number above 0 and up to 1, such as 0.8")
    groups, seen = [], set()
    for depth, unit in enumerate(reversed(units(model))):
        parameters = []
        for parameter in unit.parameters:
            # A parameter that two layers share goes with the upper one.
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                parameters.append(parameter)
        if parameters:
            groups.append(Group(parameters, factor**depth))
    return groups


def _parts(module: nn.Module, name: str) -> Iterable[tuple[str, nn.Module]]:
    """The network, opened where a module only holds others; one with parameters of its own stands before its parts."""
    if list(module.parameters(recurse=False)):
        yield name, module
    for child_name, child in module.named_children():
        full = f"{name}.{child_name}" if name else child_name
        if type(child) in _CONTAINERS:
            yield from _parts(child, full)
        else:
            yield full, child


def _normalises(module: nn.Module) -> bool:
    """Whether this is a normalisation: its parameters are at most a scale and a shift, and it has no layers inside."""
    own = list(module.parameters(recurse=False))
    bare = not any(True for _ in module.children())
    return bare and "Norm" in type(module).__name__ and all(parameter.ndim <= 3 for parameter in own)


def _number(what: str | int) -> int:
    try:
        return int(what)
    except ValueError:
        raise UsageError(f"--freeze {what!r}: expected head, or how many layers from below, such as 3") from None

"""Weights put into a network by name, strictly: what does not fit is refused.

Only the classifier may be of other classes; it then keeps its first weights, in whole or for the new classes, and says
so. Names are torchvision's, which timm's ResNets share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from pellucid import nets
from pellucid.errors import DataError, UsageError
from pellucid.nets.names import named
from pellucid.nets.options import written

#: What wrappers around a network (parallel training, averaging, a training framework) put before its names.
_PREFIXES = ("module.", "model.")

#: Networks whose published weights have other names or shapes than those of the network called so.
_VARIANTS = ("googlenet(aux=false)", *(f"resnet{depth}(d=true)" for depth in (18, 34, 50, 101)))


@dataclass(frozen=True)
class Fitted:
    """What became of weights in a network; the names are the network's own."""

    loaded: tuple[str, ...]
    """What was taken over."""
    new_head: tuple[str, ...]
    """The classifiers (modules) that keep, in whole or for some classes, the first weights they were built with."""
    left_over: tuple[str, ...]
    """What the weights have beyond the network, by their names: auxiliary heads and counters, nothing else."""
    missing: tuple[str, ...]
    """What the weights lack and the network does without: counters of batches."""
    sentences: tuple[str, ...]
    """The same, to print."""


def published_net(net: str) -> str:
    """`net` as torchvision's published weights of it expect it.

    GoogLeNet's were trained on pictures normalised by 0.5 and 0.5, so `googlenet` becomes
    `googlenet(transform-input=true)`, which brings ImageNet's normalisation to that, unless `net` itself says which.
    All other networks stay as they are. Raises UsageError for an unknown network.
    """
    if "->" in net or "→" in net or net == "custom":
        return net
    name, family = named(net)
    if name != "googlenet" or "transform" in net:
        return net
    return written(dataclasses.replace(family, transform_input=True), name)  # type: ignore[call-arg]


def network_of(tensors: Mapping[str, torch.Tensor], size: tuple[int, int]) -> str | None:
    """The first named network that the weights fit, but for its classifier; None where they fit none.

    It is built for images of that height and width, of three channels or else of one.
    """
    for channels in (3, 1):
        for net in (*nets.NAMES, *_VARIANTS):
            try:
                # Without memory for weights: only names and shapes are asked for.
                with torch.device("meta"):
                    model = nets.build(net, 2, (channels, *size))
            except UsageError:  # this one is not for images so small
                continue
            if _compare(model, tensors).fits:
                return net
    return None


def heads(model: nn.Module) -> list[str]:
    """The names of a network's classifiers: the last fully connected layer or 1×1 convolution, in order of definition.

    Auxiliary heads (children called aux…, as GoogLeNet's) have one each, and come first. Empty for a network that has
    no such layer.
    """
    last: dict[str, str] = {}
    for name, module in model.named_modules():
        point = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
        if isinstance(module, nn.Linear) or point:
            branch = name.partition(".")[0]
            last[branch if branch.startswith("aux") else ""] = name
    main = last.pop("", None)
    return [*last.values()] + ([] if main is None else [main])


def input_channels(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> int | None:
    """How many channels the pictures have that the weights are for: 3 for colour, 1 for grey.

    Read off the network's first convolution; None where it has none, or the weights lack it.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            weight = _renamed(tensors, {f"{name}.weight"}).get(f"{name}.weight")
            return None if weight is None or weight.ndim != 4 else int(weight.shape[1]) * module.groups
    return None


def fit_weights(
    model: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    *,
    classes: int | Sequence[str],
    known: Sequence[str] | None = None,
) -> Fitted:
    """Put `tensors` into `model`, by name and strictly by shape, and say what became of the classifier.

    `classes` are the network's, their number or their names; `known` are the names of those that the weights' own
    classifier tells apart, where somebody knows. With both, each class takes its row by its name, and a new class
    starts fresh. Without, the classifier is taken over where it has as many outputs, and starts fresh where it has not.
    What starts fresh keeps the weights that the network was built with.

    Names may begin with `module.` or `model.`. Raises DataError, and changes nothing, where anything else is missing,
    left over or of another shape.
    """
    found = _compare(model, tensors)
    if not found.fits:
        raise _misfit(model, found)
    own, given, parts, bare = found.own, found.given, found.parts, found.bare
    missing, tops, left = found.missing, heads(model), [name for name in given if name not in own]
    taken = {name: given[name] for name in own if name in given and name not in parts}
    said, fresh = [f"the weights have no classifier: {top} starts fresh" for top in tops if bare], tops if bare else []
    for name, top in parts.items():
        if name in own and name in given:
            rows = _by_class(top, given[name], own[name], classes, known)
            if rows.tensor is not None:
                taken[name] = rows.tensor
            fresh += [top] if rows.fresh else []
            said += [rows.sentence] if rows.sentence else []
    _refuse_nonsense(taken)
    model.load_state_dict({**own, **taken})
    if left:
        said.append(f"left out, since this network has no place for them: {_few(left)}")
    said.insert(0, f"{len(taken):,} of the network's {len(own):,} tensors are taken over")
    # A classifier's weight and bias say the same.
    return Fitted(tuple(taken), _once(fresh), tuple(left), tuple(missing), _once(said))


class _Comparison(NamedTuple):
    """A network's tensors and those given, by the network's names."""

    own: Mapping[str, torch.Tensor]
    given: Mapping[str, torch.Tensor]
    parts: Mapping[str, str]
    """Weight and bias of each classifier -> its module."""
    bare: bool
    """Whether there is nothing given for a classifier."""
    missing: Sequence[str]
    misfits: Sequence[str]
    """Those of another shape."""
    odd: Sequence[str]
    """Those that the network has no place for, and cannot do without noticing."""

    @property
    def needed(self) -> list[str]:
        """What is missing and not to be done without."""
        return [name for name in self.missing if not name.endswith("num_batches_tracked")]

    @property
    def fits(self) -> bool:
        """Whether these are weights of this network, but for its classifiers."""
        return not (self.needed or self.misfits or self.odd)


def _compare(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> _Comparison:
    own = model.state_dict()
    given = _renamed(tensors, own.keys())
    children = dict(model.named_children())
    # Auxiliary heads that were not asked for, and counters (of batches, of averages) are no sign of another network.
    odd = [
        name
        for name, tensor in given.items()
        if name not in own and tensor.ndim and (not name.startswith("aux") or name[:4] in children)
    ]
    parts = {f"{top}.{part}": top for top in heads(model) for part in ("weight", "bias")}
    # Nothing but features: no classifier, nor anything that could be one under another name.
    bare = not odd and parts.keys().isdisjoint(given)
    missing = [name for name in own if name not in given and not (bare and name in parts)]
    misfits = [name for name in own.keys() & given.keys() if not _fits(given[name], own[name], rows=name in parts)]
    return _Comparison(own, given, parts, bare, missing, sorted(misfits), odd)


def _renamed(tensors: Mapping[str, torch.Tensor], own: Iterable[str]) -> dict[str, torch.Tensor]:
    """The tensors by the names the network has, without what wrappers put before them."""
    own = set(own)
    renamed: dict[str, torch.Tensor] = {}
    for full, tensor in tensors.items():
        name = full
        while name not in own and name.startswith(_PREFIXES):
            name = name.partition(".")[2]
        if name in renamed:
            raise DataError(f"the weights have {name} twice, once as {full}: take one of the two out")
        renamed[name] = tensor
    return renamed


def _fits(theirs: torch.Tensor, mine: torch.Tensor, *, rows: bool) -> bool:
    """Whether the shapes are equal, but for the number of `rows` where those may differ."""
    same = theirs.shape[1:] == mine.shape[1:] and theirs.ndim == mine.ndim if rows else theirs.shape == mine.shape
    return same and theirs.is_floating_point() == mine.is_floating_point()


def _once(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


class _Rows(NamedTuple):
    """A classifier's weight or bias for the network's classes: None where all of it starts fresh."""

    tensor: torch.Tensor | None
    fresh: bool
    sentence: str = ""


def _by_class(
    top: str, theirs: torch.Tensor, mine: torch.Tensor, classes: int | Sequence[str], known: Sequence[str] | None
) -> _Rows:
    there, here = len(theirs), len(mine)
    if isinstance(classes, int) or known is None or here != len(classes):
        if there == here:
            return _Rows(theirs, fresh=False)
        return _Rows(None, True, f"{top} has {there:,} outputs there and {here:,} here: it starts fresh")
    if there != len(known):
        raise DataError(f"{top} has {there:,} outputs in the weights, which name {len(known):,} classes: train again")
    if tuple(classes) == tuple(known):
        return _Rows(theirs, fresh=False)
    place = {name: i for i, name in enumerate(known)}
    new = [name for name in classes if name not in place]
    if len(new) == len(classes):
        return _Rows(None, True, f"{top}: the weights know none of these classes: it starts fresh")
    rows = mine.clone()
    for i, name in enumerate(classes):
        if name in place:
            rows[i] = theirs[place[name]]
    sentence = f"{top}: {here - len(new):,} of {here:,} classes take over their row, by name"
    return _Rows(rows, bool(new), sentence + (f"; fresh: {_few(new)}" if new else ""))


def _refuse_nonsense(tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DataError(f"the weights' {name} holds values that are no numbers: take another copy")


def _misfit(model: nn.Module, found: _Comparison) -> DataError:
    """What does not fit, the first of each kind, and what to do about it."""
    own, given, missing, misfits, odd = found.own, found.given, found.needed, found.misfits, found.odd
    faults = []
    if misfits:
        pairs = [f"{name} is {_shape(given[name])} there and {_shape(own[name])} here" for name in misfits]
        faults.append(_few(pairs))
    if missing:
        faults.append("missing " + _few([f"{name} {_shape(own[name])}" for name in missing]))
    if odd:
        faults.append("no place for " + _few([f"{name} {_shape(given[name])}" for name in odd]))
    remedy = "give the --net that they are of"
    there, here = input_channels(model, given), input_channels(model, own)
    if there is not None and there != here:
        remedy = f"they are for pictures of {there} channels, so build the network for such"
    elif missing and not misfits and all(name.startswith("aux") for name in missing):
        remedy = "they have no auxiliary heads, so leave those away: --net 'googlenet(aux=false)'"
    return DataError(f"the weights are of another network: {'; '.join(faults)}: {remedy}")


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"


def _few(words: Sequence[str]) -> str:
    return ", ".join(words[:3]) + (f" and {len(words) - 3:,} more" if len(words) > 3 else "")

"""Where a number stopped being one: the layer, the batch and the files of a step whose loss is NaN or infinite."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pellucid.files import write_json
from pellucid.training.forward import Answers, Forward
from pellucid.training.loop import Training

#: What a run that met such a step leaves in its folder.
BAD_STEP = "bad_step.json"

#: Pictures that the sentence names; the file has all.
NAMED = 3


@dataclass(frozen=True)
class BadStep:
    """A step that made or met numbers that are none."""

    step: int
    """From 1."""
    epoch: int
    """From 1."""
    batch: int
    """Of the epoch, from 1."""
    rate: float
    """The learning rate of the step."""
    place: str
    """Where in the network such a number stood first, in words."""
    layer: str | None
    """The layer's name in the network; None where the loss itself made it."""
    pictures: tuple[str, ...]
    """Those of the batch whose numbers were affected there, or all of them."""
    batch_size: int

    def sentence(self) -> str:
        """What happened, to go on with after "the loss is no longer a number"."""
        named = ", ".join(self.pictures[:NAMED])
        more = f" and {len(self.pictures) - NAMED:,} more" if len(self.pictures) > NAMED else ""
        return (
            f"(epoch {self.epoch}, step {self.step}, batch {self.batch} of the epoch, learning rate {self.rate:g}): "
            f"{self.place}, for {len(self.pictures):,} of its {self.batch_size:,} pictures ({named}{more})"
        )

    def write(self, folder: Path) -> None:
        """Write `bad_step.json`, with every picture."""
        write_json(folder / BAD_STEP, asdict(self))


def weights_are_numbers(model: nn.Module) -> bool:
    """Whether every parameter is finite and no buffer holds a NaN."""
    return _bad_weights(model) is None


def forward_fault(training: Training, names: Sequence[str]) -> BadStep:
    """The fault of the step about to be taken, whose loss is no number. The network is as before afterwards.

    Of several processes each looks at the whole batch, and comes to the same.
    """
    if not weights_are_numbers(training.model):
        # They were finite a step ago: its update made them so.
        return update_fault(training, names)
    x_nhwc = training.batches.whole(*divmod(training.step, len(training.batches)))
    layer, place, bad_n = _first_bad(training, x_nhwc)
    return _bad_step(training, training.step, place, layer, names, bad_n)


def update_fault(training: Training, names: Sequence[str]) -> BadStep:
    """The fault of the step just taken, after which weights are no numbers."""
    layer = _bad_weights(training.model)
    place = f"the weights {layer} are no numbers after its update"
    return _bad_step(training, training.step - 1, place, layer, names, None)


def _bad_step(
    training: Training, step: int, place: str, layer: str | None, names: Sequence[str], bad_n: torch.Tensor | None
) -> BadStep:
    """The step, counted from 0, with the pictures of its batch: those marked, or all."""
    batches = training.batches
    epoch, number = divmod(max(0, step), len(batches))
    index_n = batches.members(epoch, number)
    chosen_n = index_n if bad_n is None or len(bad_n) != len(index_n) else index_n[bad_n.cpu().numpy()]
    taken = training.step
    training.step = max(0, step)
    rate, training.step = training.rate, taken
    pictures = tuple(names[i] for i in chosen_n.tolist())
    return BadStep(step + 1, epoch + 1, number + 1, rate, place, layer, pictures, len(index_n))


def _first_bad(training: Training, x_nhwc: torch.Tensor) -> tuple[str | None, str, torch.Tensor | None]:
    """The first layer with such a number, in words as well, and which pictures of the batch have one there."""
    model = copy.deepcopy(training.model)
    found: list[tuple[str, str, torch.Tensor]] = []

    def look(name: str, where: str) -> Any:
        def hook(_module: nn.Module, *values: Any) -> None:
            bad_n = None if found else _bad_pictures(values[-1], len(x_nhwc))
            if bad_n is not None:
                found.append((name, where, bad_n))

        return hook

    for name, module in model.named_modules():
        if not any(module.children()):
            kind = type(module).__name__
            module.register_forward_pre_hook(look(name, f"first on the way into {name} ({kind})"))
            module.register_forward_hook(look(name, f"first in the answer of {name} ({kind})"))
    training.seed_step()
    with torch.no_grad():
        logits_nk, _ = Forward(Answers(model), training.batches.preprocess, training.recipe.engine)(x_nhwc)
    if found:
        return found[0]
    bad_n = _bad_pictures(logits_nk, len(x_nhwc))
    if bad_n is not None:
        return None, "first in the logits", bad_n
    return None, "first in the loss itself, the logits being numbers", None


def _bad_pictures(value: Any, pictures: int) -> torch.Tensor | None:
    """Which pictures have such a number among these; None where none has. Of what has no axis of pictures: all."""
    if isinstance(value, (tuple, list)):
        return next((bad for bad in (_bad_pictures(part, pictures) for part in value) if bad is not None), None)
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return None
    finite = value.isfinite()
    if bool(finite.all()):
        return None
    if value.ndim == 0 or len(value) != pictures:
        return torch.ones(pictures, dtype=torch.bool)
    return ~finite.flatten(1).all(1) if value.ndim > 1 else ~finite


def _bad_weights(model: nn.Module) -> str | None:
    """The first parameter that is not finite, or buffer with a NaN (a mask of infinities is sound)."""
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            return name
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point() and bool(buffer.isnan().any()):
            return name
    return None

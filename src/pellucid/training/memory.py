"""A batch that memory has no room for, taken in parts; and how much of a whole batch any part of it is.

The gradient of a batch's mean loss is the sum of its parts' gradients, each times its share of the batch. The same
arithmetic makes one batch of what several processes hold.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pellucid.data.memory import out_of_memory
from pellucid.errors import PellucidError
from pellucid.training.losses import Loss, mass

# glibc's numbers for what `mallopt` sets: malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4


class NoRoomError(PellucidError):
    """Memory has no room for a training step, however the batch is divided."""


def no_room(pictures: int, size: tuple[int, int]) -> NoRoomError:
    """The error for a step of so many pictures of this height and width, the fewest that can be."""
    height, width = size
    shown = f"{pictures} picture{'s' if pictures > 1 else ''} of {width}×{height}"
    return NoRoomError(
        f"memory has no room for a training step of {shown}: end what else runs on this machine, or take a smaller "
        "--net or --size"
    )


@contextmanager
def enough(what: str) -> Iterator[None]:
    """Turn memory that runs out where nothing can be divided into a NoRoomError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise NoRoomError(f"memory has no room for {what}") from error


class Whole(NamedTuple):
    """How much a whole batch is, of which a process or a part has a share."""

    pictures: int
    mass: float | torch.Tensor
    """What its mean loss is divided by: see `losses.mass`."""

    @classmethod
    def of(cls, loss: Loss, labels: torch.Tensor, *, mixed: bool = False) -> Whole:
        """The batch of these labels (N,); of `mixed` pictures each counts alike."""
        return cls(len(labels), float(len(labels)) if mixed else mass(loss, labels))


class Statistics:
    """A network's buffers (a batch normalisation's running mean, say) before a step, should it fail half-way."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [module for module in model.modules() if any(b is not None for b in module._buffers.values())]
        self._kept = [buffer.clone() for buffer in self._now()]

    def keep(self) -> None:
        """Note them as they are."""
        if self._kept:
            torch._foreach_copy_(self._kept, self._now())

    def put_back(self) -> None:
        """Make them as they were noted."""
        if self._kept:
            torch._foreach_copy_(self._now(), self._kept)

    def _now(self) -> list[torch.Tensor]:
        return [b.detach() for module in self._modules for b in module._buffers.values() if b is not None]


def give_back(device: torch.device) -> None:
    """Let go of what a step that failed has left, so that a smaller one finds room.

    The C library keeps freed blocks of the sizes it was asked for, and what a batch's parts want are other sizes; an
    error's frames can be part of a cycle, and so outlive it.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif (library := _glibc()) is not None:
        library.malloc_trim(0)


@contextmanager
def keeping_freed() -> Iterator[None]:
    """Have the C library keep what a step frees for the next one, which wants blocks of the same sizes.

    Else it gives large blocks back to the system, and each of the next step's pages is cleared and mapped anew: on two
    cores a fifth to a third of a small network's step. Afterwards it keeps as much as it would have come to by itself.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_M_MMAP_MAX, 0)
    library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        library.mallopt(_M_MMAP_MAX, 65_536)
        library.mallopt(_M_MMAP_THRESHOLD, 2**25)
        library.mallopt(_M_TRIM_THRESHOLD, 2**26)
        library.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc, whose settings these are."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def normalises(model: nn.Module) -> bool:
    """Whether a batch normalisation takes the batch's own statistics."""
    return any(isinstance(module, _BatchNorm) and module.training for module in model.modules())


def most_parts(model: nn.Module, pictures: int) -> int:
    """In how many parts a batch can be taken: of one picture, or of two where batch normalisation compares them."""
    return max(1, pictures // (2 if normalises(model) else 1))


def sentence(model: nn.Module, pictures: int, parts: int) -> str:
    """What a reader should know of a batch of so many pictures that is taken in parts."""
    said = f"memory ran out: the batch of {pictures} is now taken in {parts} parts, with the gradient accumulated"
    if normalises(model):
        said += f"; batch-norm statistics now come from {pictures // parts} pictures at a time"
    return said

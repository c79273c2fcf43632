"""Whether a computation failed for want of memory."""

from __future__ import annotations

import torch

#: What errors say that have no class of their own: torch's allocator on the processor, oneDNN (which says no more than
#: that it could not create something), cuBLAS and cuDNN, and Apple's GPUs.
_SIGNS = (
    "DefaultCPUAllocator",
    "not enough memory",
    "out of memory",
    "could not create a primitive",
    "could not create a memory",
    "could not allocate",
    "ALLOC_FAILED",
)


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that there was no memory, on whatever device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)

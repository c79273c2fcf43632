"""One run by several processes, as `torchrun` starts them: who they are, and how they tell each other what they know.

Process 0 leads: it alone writes and prints, and what it has decided the others are told. What they send each other are
numbers and JSON, never pickle. On processors they talk through gloo; gradients on CUDA go through NCCL, and what the
hosts agree on through gloo there too, so that no host waits for its device to learn it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import importlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from pellucid.errors import DataError, PellucidError, UsageError, VerificationError

#: What the others say when one has ended.
GONE = "another process of this run ended, so this one cannot go on; what it said last tells why"

#: A note on an error that process 0 has raised and shown already.
TOLD = "said by process 0"

# While process 0 reads a million pictures the others wait. A process that dies is noticed at once, by its connection.
_PATIENCE = dt.timedelta(days=7)

# As long as one waits for process 0 to come to the same error.
_MOMENT = dt.timedelta(seconds=3)

_ERRORS = {kind.exit_code: kind for kind in (PellucidError, UsageError, DataError, VerificationError)}

_groups = itertools.count()


def several() -> bool:
    """Whether this process is one of several that train together."""
    known = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return known and _number("WORLD_SIZE", 1) > 1


def rank() -> int:
    """Which of them this is, from 0."""
    return _number("RANK", 0) if several() else 0


def size() -> int:
    """How many there are."""
    return _number("WORLD_SIZE", 1) if several() else 1


def local_rank() -> int:
    """Which of those on this machine this is, from 0."""
    return _number("LOCAL_RANK", 0) if several() else 0


def local_size() -> int:
    """How many there are on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1) if several() else 1


def leads() -> bool:
    """Whether this process writes and prints."""
    return rank() == 0


@contextmanager
def together() -> Iterator[None]:
    """While entered, this process is in touch with the others, if there are any.

    Raises PellucidError where they do not find each other.
    """
    if not several() or dist.is_initialized():
        yield
        return
    # DistributedDataParallel imports this module, and a default argument in it then keeps the group for good: gloo's
    # threads would live on, and one that lets go of a tensor while Python shuts down ends this process with SIGABRT.
    importlib.import_module("torch.distributed.nn.functional")
    # Gloo needs fresh names for each group; torchrun keeps those of workers that it has started anew.
    prefix = f"pellucid/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_groups)}"
    store = dist.PrefixStore(prefix, _store())  # type: ignore[attr-defined]
    on_cuda = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
            store=store,
            rank=rank(),
            world_size=size(),
            timeout=_PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise PellucidError(
            f"the {size()} processes of this run do not find each other ({reason}); start them with torchrun"
        ) from error
    try:
        yield
    except PellucidError as error:
        _compare(error, store)
        raise
    finally:
        dist.destroy_process_group()


def lost(error: BaseException) -> bool:
    """Whether an error of torch's says that another process has gone."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


@contextmanager
def in_touch() -> Iterator[None]:
    """Turn the loss of another process into a PellucidError."""
    try:
        yield
    except RuntimeError as error:
        if lost(error):
            raise PellucidError(GONE) from error
        raise


def agreed(value: Any) -> Any:
    """What process 0 gives, which must be plain JSON; what the others give does not matter."""
    if not several():
        return value
    data = bytearray(json.dumps(value).encode()) if leads() else bytearray()
    length = torch.tensor([len(data)])
    with in_touch():
        dist.broadcast(length, 0)
        content = torch.frombuffer(data, dtype=torch.uint8) if leads() else torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(content, 0)
    return json.loads(content.numpy().tobytes())


def led(work: Callable[[], Any]) -> Any:
    """What process 0's `work` gives, plain JSON, for every process; the others do nothing and wait for it.

    Its error becomes theirs.
    """
    found = None
    with leader_first():
        if leads():
            found = work()
    return agreed(found)


@contextmanager
def leader_first() -> Iterator[None]:
    """What stands inside is done by process 0 while the others wait, and then by them: it finds what 0 has made.

    Its error becomes theirs.
    """
    if several() and not leads():
        _raise(agreed(None))
        yield
        return
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(PellucidError):
            ours = isinstance(error, PellucidError)
            agreed({"message": str(error) if ours else GONE, "exit_code": getattr(error, "exit_code", 1)})
        raise
    agreed(None)


def total(numbers: torch.Tensor) -> torch.Tensor:
    """The sum of the processes' tensors, in place, on whatever device they are."""
    with in_touch():
        dist.all_reduce(numbers)
    return numbers


def any_of(here: bool) -> bool:
    """Whether it is so in any process."""
    return bool(total(torch.tensor([int(here)])) > 0) if several() else here


def spread(tensors: Iterable[torch.Tensor]) -> None:
    """Put process 0's tensors into those of the others."""
    if several():
        with in_touch():
            for tensor in tensors:
                dist.broadcast(tensor, 0)


def gathered(rows: torch.Tensor, which: Callable[[int], slice]) -> torch.Tensor:
    """The rows of all processes, on the processor: `rows` has its full length everywhere, and process p's own filled.

    `which(p)` are the rows of process p. Returns `rows`.
    """
    if several():
        with in_touch():
            for process in range(size()):
                part = rows[which(process)]
                if len(part):
                    dist.broadcast(part, process)
    return rows


def _raise(failure: Any) -> None:
    if failure is not None:
        error = _ERRORS[failure["exit_code"]](failure["message"])
        error.add_note(TOLD)
        raise error


def _compare(error: PellucidError, store: Any) -> None:
    """Note it on an error that process 0 has too, such as a loss that is no number anywhere."""
    with contextlib.suppress(RuntimeError):
        if leads():
            store.set("error", str(error))
        elif not hasattr(error, "__notes__"):
            store.wait(["error"], _MOMENT)
            if store.get("error").decode() == str(error):
                error.add_note(TOLD)


@functools.cache
def _store() -> Any:
    store, _, _ = next(iter(dist.rendezvous("env://")))  # type: ignore[attr-defined]
    return store


def _number(name: str, otherwise: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else otherwise

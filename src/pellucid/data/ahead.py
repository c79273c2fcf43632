"""The next batch is made while this one is trained on."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def ahead(made: Iterator[T]) -> Generator[T, None, None]:
    """The same things in the same order, each made in a thread of its own while the one before it is in use.

    That thread computes alone: a team of its own would take the cores from the network. What is raised in it is raised
    here, in its place.
    """
    # The number of threads that this sets is the thread's own.
    with ThreadPoolExecutor(1, "ahead", torch.set_num_threads, (1,)) as pool:
        end = object()
        coming = pool.submit(next, made, end)
        while (one := coming.result()) is not end:
            coming = pool.submit(next, made, end)
            yield one  # type: ignore[misc]  # it is not the end

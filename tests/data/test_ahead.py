from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from pellucid.data.ahead import ahead


def test_the_same_in_the_same_order() -> None:
    assert list(ahead(iter([3, None, 1, 3]))) == [3, None, 1, 3]
    assert list(ahead(iter([]))) == []


def test_the_next_is_made_while_one_is_in_use() -> None:
    asked = [threading.Event() for _ in range(3)]

    def numbers() -> Iterator[int]:
        for n, event in enumerate(asked):
            event.set()
            yield n

    for n in ahead(numbers()):
        if n < 2:
            assert asked[n + 1].wait(10)


def test_its_thread_computes_alone_and_the_others_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:

        def counts() -> Iterator[int]:
            for _ in range(2):
                yield torch.get_num_threads()

        assert list(ahead(counts())) == [1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_is_raised_arrives_in_its_place() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    numbers_ahead = ahead(numbers())
    assert next(numbers_ahead) == 1
    with pytest.raises(ValueError, match="no more"):
        next(numbers_ahead)


def test_one_that_is_left_ends_its_thread() -> None:
    threads = threading.active_count()
    numbers = ahead(iter(range(100)))
    assert next(numbers) == 0
    numbers.close()
    assert threading.active_count() == threads

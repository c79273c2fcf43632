"""The worked numbers on every page are what the code computes."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from pellucid import textbook

PAGES = [module.name for module in pkgutil.iter_modules(textbook.__path__)]

#: Parts that pages share, without a formula of their own to work out.
SHARED = {"elementwise", "operation", "sets", "gates"}


@pytest.mark.parametrize("page", PAGES)
def test_worked_numbers(page: str) -> None:
    result = doctest.testmod(importlib.import_module(f"pellucid.textbook.{page}"))
    assert result.failed == 0
    assert result.attempted or page in SHARED, "a page works a number out"


def test_the_front_page() -> None:
    result = doctest.testmod(textbook)
    assert result.failed == 0
    assert result.attempted


def test_every_public_function_says_what_it_does() -> None:
    for page in PAGES:
        module = importlib.import_module(f"pellucid.textbook.{page}")
        assert module.__doc__
        for name, value in vars(module).items():
            if callable(value) and getattr(value, "__module__", "") == module.__name__ and not name.startswith("_"):
                assert value.__doc__, f"{page}.{name}"

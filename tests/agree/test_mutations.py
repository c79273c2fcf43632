"""A broken backward pass does not go unnoticed: one mutant of each kind an operation here, all of them with -m slow."""

from __future__ import annotations

import numpy as np
import pytest
from tests.agree.mutate import KINDS, caught, mutants, table

from pellucid.textbook import OPERATIONS


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_a_broken_backward_is_caught(name: str) -> None:
    rng = np.random.default_rng(0)
    every = list(mutants(OPERATIONS[name]))
    for kind in KINDS:
        of_kind = [mutant for mutant in every if mutant.kind == kind]
        for number in rng.permutation(len(of_kind)):
            how = caught(of_kind[number])
            assert how != "missed", of_kind[number].line
            if how != "void":
                break
        else:
            pytest.fail(f"{name} has no mutant of kind {kind} that changes a number")


@pytest.mark.slow
def test_every_mutant_is_caught() -> None:
    _, missed = table()
    assert not missed, [mutant.line for mutant in missed]

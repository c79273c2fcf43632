from __future__ import annotations

import pytest

from pellucid.errors import DataError, PellucidError, UsageError, VerificationError, did_you_mean


@pytest.mark.parametrize(
    ("kind", "code"), [(PellucidError, 1), (UsageError, 2), (DataError, 3), (VerificationError, 4)]
)
def test_exit_codes_are_those_that_scripts_rely_on(kind: type[PellucidError], code: int) -> None:
    assert kind("x").exit_code == code


def test_a_wrong_value_is_a_value_error() -> None:
    assert issubclass(UsageError, ValueError)
    assert issubclass(DataError, ValueError)


def test_did_you_mean() -> None:
    assert did_you_mean("Momentun", ["momentum", "adam"]) == "did you mean 'momentum'?"
    assert did_you_mean("zzz", ["momentum", "adam"]) == "known are: momentum, adam"

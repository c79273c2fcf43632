"""The public names, and that they cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pellucid

PUBLIC = {
    "PellucidError",
    "Recipe",
    "Recogniser",
    "Run",
    "data",
    "draw",
    "evaluate",
    "load",
    "nets",
    "record",
    "train",
    "verify",
}


def test_at_most_twelve_public_names() -> None:
    assert set(pellucid.__all__) == PUBLIC
    assert len(PUBLIC) <= 12


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(pellucid, name).__doc__
    assert name in dir(pellucid)


def test_an_unknown_name_says_what_is_known() -> None:
    with pytest.raises(AttributeError, match=r"public names: .*train"):
        pellucid.trian  # noqa: B018


def _modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


def test_importing_pellucid_imports_nothing_heavy() -> None:
    assert not _modules_after("import pellucid") & {"torch", "numpy", "matplotlib", "sklearn", "rich", "tyro"}


def test_help_imports_nothing_heavy() -> None:
    loaded = _modules_after("from pellucid.app.cli import main; main(['--help'])")
    assert not loaded & {"torch", "numpy", "matplotlib", "sklearn", "rich", "tyro"}

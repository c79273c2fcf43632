"""Recipes in files: JSON, as runs write them, and TOML, as people do."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

from pellucid.errors import DataError
from pellucid.files import read_bytes, read_json
from pellucid.recipe.settings import Recipe

#: The largest TOML file that is read, in bytes, and the most dots in a line of it. Python's reader takes time and
#: memory that grow with the square of a key's parts (`a.a.a = 1`).
LARGEST, DOTS = 1 << 17, 1000


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """A recipe from a .json or .toml file; a run's `recipe.json` has its measurements beside it, which are passed over.

    Raises DataError for a file that cannot be read, UsageError for settings that make no sense.
    """
    values = _read_toml(Path(path)) if Path(path).suffix.lower() == ".toml" else read_json(path)
    if isinstance(values, dict):
        values.pop("measured", None)
    return Recipe.from_json(values, os.fspath(path))


def to_toml(recipe: Recipe) -> str:
    """The recipe as a TOML file that one can edit. What is chosen by rule unless given stands there as a comment."""
    top, tables = [], []
    for name, value in recipe.to_json().items():
        if isinstance(value, dict):
            tables.append("\n".join([f"[{name}]", *(_line(key, inner) for key, inner in value.items())]))
        else:
            top.append(_line(name, value))
    return "\n\n".join(["\n".join(top), *tables]) + "\n"


def _line(name: str, value: Any) -> str:
    if value is None:
        return f"# {name} = ..."
    # JSON's strings, numbers, booleans and lists of them are TOML's too, but for one character that TOML wants escaped.
    return f"{name} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")


def _read_toml(path: Path) -> dict[str, Any]:
    raw = read_bytes(path, limit=LARGEST)
    prints = "`pellucid train --show-recipe` prints one"
    for number, line in enumerate(raw.split(b"\n"), 1):
        if line.count(b".") > DOTS:
            raise DataError(f"{path}, line {number}: has more than {DOTS:,} dots, as no recipe has; {prints}")
    try:
        return tomllib.loads(raw.decode("utf-8-sig"))
    except RecursionError:
        raise DataError(f"{path}: is nested too deep for a recipe; {prints}") from None
    except ValueError as error:  # of bytes that are no text, of what is no TOML, of numbers with too many digits
        raise DataError(f"{path}: not a TOML file ({error!s:.200}); {prints}") from error

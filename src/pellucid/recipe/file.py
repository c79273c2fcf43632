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

#: The largest recipe file that is read, in bytes.
LARGEST = 1 << 20


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
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: not a TOML file ({error}); `pellucid train --show-recipe` prints one") from error

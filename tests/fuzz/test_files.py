from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.guard import few, guarded
from tests.fuzz.mutate import Edit, byte_edits, changed, json_edits, mutated, with_header

from pellucid.files import read_json, read_lines, read_tensors, read_tensors_metadata, write_tensors
from pellucid.recipe import Recipe, read_recipe, to_toml

VALUE: Any = {"a": [1, 2.5, {"b": None, "c": "花"}], "d": {"e": True, "f": [[], {}]}, "g": -3e7, "h": "\n\\"}


@given(edits=byte_edits)
@few(150)
def test_json_bytes(tmp_path_factory: pytest.TempPathFactory, edits: list[Edit]) -> None:
    path = _file(tmp_path_factory, mutated(json.dumps(VALUE, indent=1).encode(), edits))
    guarded("read_json", path.parent, lambda: read_json(path), sane=_is_json)


@given(edits=json_edits)
@few(150)
def test_json_values(tmp_path_factory: pytest.TempPathFactory, edits: list[Edit]) -> None:
    path = _file(tmp_path_factory, changed(VALUE, edits))
    guarded("read_json", path.parent, lambda: read_json(path), sane=_is_json)


@given(edits=byte_edits, values=json_edits)
@few(100)
def test_lines(tmp_path_factory: pytest.TempPathFactory, edits: list[Edit], values: list[Edit]) -> None:
    lines = b"\n".join([json.dumps(VALUE).encode(), changed(VALUE, values), json.dumps(VALUE).encode()])
    path = _file(tmp_path_factory, mutated(lines, edits[1:]))
    guarded("read_lines", path.parent, lambda: read_lines(path), sane=lambda rows: all(map(_is_json, rows)))


@given(edits=byte_edits, header=json_edits, inside=st.booleans())
@few(300)
def test_safetensors(
    tmp_path_factory: pytest.TempPathFactory, edits: list[Edit], header: list[Edit], *, inside: bool
) -> None:
    path = _file(tmp_path_factory, b"")
    arrays: dict[str, Any] = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.zeros((0, 4), np.int64),
        "c": np.array(True),
        "d.e": np.ones(5, np.float16),
    }
    write_tensors(path, arrays, {"format": "pt", "x": "{}"})
    whole = path.read_bytes()
    path.write_bytes(with_header(whole, header) if inside else mutated(whole, edits))

    def sane(found: tuple[dict[str, Any], dict[str, str]]) -> bool:
        return all(array.nbytes <= path.stat().st_size for array in found[0].values())

    guarded("read_tensors", path.parent, lambda: (read_tensors(path), read_tensors_metadata(path)), sane=sane)


@given(edits=byte_edits, values=json_edits, toml=st.booleans())
@few(200)
def test_recipes(
    tmp_path_factory: pytest.TempPathFactory, edits: list[Edit], values: list[Edit], *, toml: bool
) -> None:
    recipe = Recipe("digits", "lenet5")
    text = mutated(to_toml(recipe).encode(), edits) if toml else changed(recipe.to_json(), values)
    path = _file(tmp_path_factory, text, "recipe.toml" if toml else "recipe.json")
    guarded("read_recipe", path.parent, lambda: read_recipe(path), sane=lambda found: isinstance(found, Recipe))


def _file(factory: pytest.TempPathFactory, data: bytes, name: str = "file") -> Path:
    folder = factory.getbasetemp() / "here"
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(data)
    return path


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_json, value.values()))
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))

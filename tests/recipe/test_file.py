from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pellucid.errors import DataError, UsageError
from pellucid.recipe import PRESETS, Recipe, read_recipe, settle, to_toml


@example('\x7f\x00\x1f\\"', None, None)
@given(st.text(), st.none() | st.floats(1e-6, 1), st.none() | st.lists(st.sampled_from(["flip", "shift"]), unique=True))
def test_a_recipe_survives_toml(data: str, lr: float | None, augment: list[str] | None) -> None:
    # A file is UTF-8, which has no lone surrogates; a recipe with one goes into JSON.
    if any("\ud800" <= c <= "\udfff" for c in data):
        return
    recipe = settle(Recipe(data=data), lr=lr, augment=augment, batch_size="all")
    assert Recipe.from_json(tomllib.loads(to_toml(recipe))) == recipe


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("kind", ["json", "toml"])
def test_a_preset_survives_its_file(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / f"recipe.{kind}"
    recipe = PRESETS[name]
    path.write_text(to_toml(recipe) if kind == "toml" else json.dumps(recipe.to_json()), encoding="utf-8")
    assert read_recipe(path) == recipe


def test_measurements_beside_a_recipe_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({**Recipe(data="digits").to_json(), "measured": [1, 2]}), encoding="utf-8")
    assert read_recipe(path) == Recipe(data="digits")


def test_a_short_recipe_leaves_the_rest_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('net = "lenet5"\n[optimisation]\nepochs = 3\n', encoding="utf-8")
    assert read_recipe(path) == settle(Recipe(), net="lenet5", epochs=3)


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("net = ", DataError, "not a TOML file"),
        ("[optimisation]\nepoch = 3", UsageError, "did you mean 'epochs'?"),
        ("seed = 1.5", UsageError, "seed: expected int, found 1.5"),
    ],
)
def test_a_recipe_file_that_makes_no_sense_is_refused(
    tmp_path: Path, text: str, error: type[Exception], sentence: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(error) as caught:
        read_recipe(path)
    assert sentence in str(caught.value)
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a = " + "[" * 20_000, "is nested too deep for a recipe"),
        ("a = {" + "a={" * 20_000, "is nested too deep for a recipe"),
        ("seed = " + "1" * 5000, "not a TOML file"),
        ("x = 1\n" + ".".join("a" * 40_000) + " = 1", "line 2: has more than 1,000 dots"),
        ("x" * 200_000, "holds 200,000 bytes or more"),
    ],
)
def test_a_toml_file_cannot_eat_time_or_memory(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=sentence):
        read_recipe(path)

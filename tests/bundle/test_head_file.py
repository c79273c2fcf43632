from __future__ import annotations

import hashlib
import importlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from pellucid import nets
from pellucid.bundle import Recogniser, load, save, verify
from pellucid.bundle.folder import png
from pellucid.bundle.head import Head, attach, fit_head, head_of
from pellucid.bundle.head_file import load_head, save_head
from pellucid.data.preprocess import Preprocess
from pellucid.errors import DataError, UsageError, VerificationError

KINDS = ("svm", "tree", "forest", "knn")
X = np.random.default_rng(0).normal(size=(90, 128)).astype(np.float32)
Y = np.arange(90) % 3
X[:, 0] += Y
VAL = {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "n": 9, "baseline": 0.5, "per_class": []}
FACTS = {"data": "d", "version": "0", "epochs": 1, "epoch": 1, "seed": 0, "train_n": 9, "val": VAL}
PREPROCESS = Preprocess((8, 8), "crop", 1, (0.3,), (0.37,))


@pytest.fixture
def head() -> Head:
    return fit_head("tree", X, Y, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_head_comes_back_to_the_bit(tmp_path: Path, kind: str, classes: int) -> None:
    head = fit_head(kind, X, Y % classes, 5, classes=4)
    save_head(head, tmp_path)
    again = load_head(tmp_path)
    assert again is not None
    assert (again.kind, again.classes, again.features, again.seed, again.scale) == (kind, 4, 128, 5, head.scale)
    assert np.array_equal(again.probabilities(X), head.probabilities(X))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_heads_give_equal_bytes(tmp_path: Path, kind: str) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save_head(fit_head(kind, X, Y, 0), tmp_path / folder)
    for name in ("head.skops", "head.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_no_head_no_file(tmp_path: Path) -> None:
    assert load_head(tmp_path) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_with_a_head_is_loaded_and_verified_like_any_other(tmp_path: Path, kind: str) -> None:
    model = attach(nets.build("quick(32)", 3, (1, 8, 8), seed=0).eval(), fit_head(kind, X, Y, 0))
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)
    examples = [(f"{i}.png", png(pixels[i])) for i in range(6)]
    saved = Recogniser(model, ("a", "b", "c"), PREPROCESS, "quick(32)")
    save(saved, tmp_path, examples=examples, facts=FACTS)
    loaded = load(tmp_path)
    assert np.array_equal(loaded.probabilities(pixels), saved.probabilities(pixels))
    assert head_of(loaded.model) is not None
    assert verify(tmp_path) == 0
    # The network's own classifier is kept as well: without the head's files it is the network it was.
    for name in ("head.skops", "head.json"):
        (tmp_path / name).unlink()
    plain = Recogniser(nets.build("quick(32)", 3, (1, 8, 8), seed=0).eval(), ("a", "b", "c"), PREPROCESS, "quick(32)")
    assert np.array_equal(load(tmp_path).probabilities(pixels), plain.probabilities(pixels))
    with pytest.raises(VerificationError):
        verify(tmp_path)


def forge(folder: Path, data: bytes) -> None:
    """Another file in a head's place, with a checksum to match."""
    (folder / "head.skops").write_bytes(data)
    settings = json.loads((folder / "head.json").read_text("utf-8"))
    settings["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "head.json").write_text(json.dumps(settings), encoding="utf-8")


def schema(data: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return json.loads(file.read("schema.json"))


def with_schema(data: bytes, changed: Any, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, json.dumps(changed) if name == "schema.json" else old.read(name))
    return buffer.getvalue()


def test_a_damaged_file_is_refused(tmp_path: Path, head: Head) -> None:
    save_head(head, tmp_path)
    path = tmp_path / "head.skops"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="is not the file that"):
        load_head(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        load_head(tmp_path)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 torn", b"\x80\x04K\x01."])
def test_what_is_no_file_of_skops_is_refused(tmp_path: Path, head: Head, data: bytes) -> None:
    save_head(head, tmp_path)
    forge(tmp_path, data)
    with pytest.raises(DataError, match="not a file of skops"):
        load_head(tmp_path)


def run_me(_: object) -> None:
    raise AssertionError("this ran")


def test_a_file_that_names_a_function_is_refused_and_runs_nothing(tmp_path: Path, head: Head) -> None:
    save_head(head, tmp_path)
    for node in (
        {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode", "content": "system"},
        {"__class__": "run_me", "__module__": __name__, "__loader__": "TypeNode"},
        {"__class__": "Popen", "__module__": "subprocess", "__loader__": "ObjectNode", "content": None},
        {"__class__": "str", "__module__": "builtins", "__loader__": "OperatorFuncNode", "attrs": None},
        {"__class__": "Tree", "__module__": "sklearn.tree._tree"},
    ):
        data = (tmp_path / "head.skops").read_bytes()
        whole = schema(data)
        whole["content"]["content"]["criterion"] = node
        forge(tmp_path, with_schema(data, whole))
        with pytest.raises(DataError, match=r"names .*, of which no head of kind tree is made: not opened"):
            load_head(tmp_path)


@pytest.mark.parametrize("protocol", [0, 1, True, None, 10**6])
def test_an_older_format_is_refused(tmp_path: Path, head: Head, protocol: object) -> None:
    """Its readers are others than those that the list of types was made for."""
    save_head(head, tmp_path)
    data = (tmp_path / "head.skops").read_bytes()
    forge(tmp_path, with_schema(data, {**schema(data), "protocol": protocol}))
    with pytest.raises(DataError, match=r"protocol .* of skops|not a head of kind tree"):
        load_head(tmp_path)


def test_a_head_of_another_kind_than_it_claims_is_refused(tmp_path: Path, head: Head) -> None:
    save_head(fit_head("forest", X, Y, 0), tmp_path)
    data = (tmp_path / "head.skops").read_bytes()
    save_head(head, tmp_path)
    forge(tmp_path, data)
    with pytest.raises(DataError, match="RandomForestClassifier"):
        load_head(tmp_path)


def test_a_compressed_file_is_refused(tmp_path: Path, head: Head) -> None:
    save_head(head, tmp_path)
    data = (tmp_path / "head.skops").read_bytes()
    forge(tmp_path, with_schema(data, schema(data), zipfile.ZIP_DEFLATED))
    with pytest.raises(DataError, match=r"head\.skops: is compressed"):
        load_head(tmp_path)


def rewritten(data: bytes, change: Any) -> bytes:
    """The file with the numbers of every array changed by `change(array)`, where that gives something."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".npy"):
                array = change(np.load(io.BytesIO(content)))
                if array is not None:
                    np.save(out := io.BytesIO(), array)
                    content = out.getvalue()
            new.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("left_child", 10**6, "branches"),
        ("right_child", -5, "branches"),
        ("left_child", 0, "branches"),
        ("feature", 10**9, "features of a tree"),
        ("feature", -7, "features of a tree"),
    ],
)
@pytest.mark.parametrize("kind", ["tree", "forest"])
def test_a_tree_that_leads_outside_itself_is_refused(
    tmp_path: Path, kind: str, field: str, value: int, what: str
) -> None:
    """Types say nothing of contents, and scikit-learn follows these numbers unchecked, outside the array or forever."""

    def mislead(array: Any) -> Any:
        if array.dtype.names is None or field not in array.dtype.names:
            return None
        array = array.copy()
        array[field][0] = value
        return array

    save_head(fit_head(kind, X, Y, 0), tmp_path)
    forge(tmp_path, rewritten((tmp_path / "head.skops").read_bytes(), mislead))
    with pytest.raises(DataError, match=what):
        load_head(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("forged", [np.array([0, 1, 99]), np.array([2, 1, 0]), np.array([-1, 0, 1]), np.zeros(3)])
def test_classes_that_cannot_be_are_refused(tmp_path: Path, kind: str, forged: np.ndarray[Any, Any]) -> None:
    def change(array: Any) -> Any:
        return forged if array.shape == (3,) and array.dtype == np.int64 and set(array) == {0, 1, 2} else None

    save_head(fit_head(kind, X, Y, 0), tmp_path)
    forge(tmp_path, rewritten((tmp_path / "head.skops").read_bytes(), change))
    with pytest.raises(DataError, match="its classes cannot be"):
        load_head(tmp_path)


def test_neighbours_labels_outside_the_classes_are_refused(tmp_path: Path) -> None:
    save_head(fit_head("knn", X, Y, 0), tmp_path)
    forge(
        tmp_path,
        rewritten((tmp_path / "head.skops").read_bytes(), lambda a: a + 100 if a.shape == (90,) else None),
    )
    with pytest.raises(DataError, match="its labels cannot be"):
        load_head(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_svm_whose_numbers_are_none_is_refused(tmp_path: Path, value: float) -> None:
    save_head(fit_head("svm", X, Y, 0), tmp_path)
    forge(
        tmp_path,
        rewritten((tmp_path / "head.skops").read_bytes(), lambda a: a * value if a.shape == (3, 128) else None),
    )
    with pytest.raises(DataError, match="its numbers cannot be"):
        load_head(tmp_path)


def test_settings_of_someone_elses_are_refused(tmp_path: Path, head: Head) -> None:
    save_head(head, tmp_path)
    other = DecisionTreeClassifier(random_state=0, max_depth=2).fit(X, Y)
    forge(tmp_path, importlib.import_module("skops.io").dumps(other))
    with pytest.raises(DataError, match=r"its settings cannot be\); it was made with scikit-learn"):
        load_head(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"kind": "mlp"}, {"kind": 3}, {"classes": -1}, {"features": 2.5}, {"scale": 0}, {"scale": "x"}, {"seed": None}],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, head: Head, change: dict[str, Any]) -> None:
    save_head(head, tmp_path)
    path = tmp_path / "head.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **change}), encoding="utf-8")
    with pytest.raises(DataError, match=r"head\.json: "):
        load_head(tmp_path)


@pytest.mark.parametrize(("key", "value"), [("features", 127), ("classes", 2), ("seed", 9)])
def test_settings_that_are_not_the_files_are_refused(tmp_path: Path, head: Head, key: str, value: int) -> None:
    save_head(head, tmp_path)
    path = tmp_path / "head.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), key: value}), encoding="utf-8")
    with pytest.raises(DataError, match="cannot be"):
        load_head(tmp_path)


def test_a_missing_skops_is_named(tmp_path: Path, head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(UsageError, match="pip install skops"):
        save_head(head, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_array_named_often_is_refused_before_it_is_read(tmp_path: Path, head: Head) -> None:
    save_head(head, tmp_path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "head.skops") as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "schema.json":
                content = content.replace(b'"1.npy"', b'"0.npy"')
            new.writestr(name, content)
    (tmp_path / "head.skops").write_bytes(buffer.getvalue())
    settings = json.loads((tmp_path / "head.json").read_bytes())
    settings["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    (tmp_path / "head.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match="names one of its arrays twice"):
        load_head(tmp_path)

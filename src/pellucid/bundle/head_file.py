"""Heads on disk: `head.skops`, fitted classifiers without pickle, and `head.json`, which says what it should be.

What is read may come from anywhere. The checksum finds damage. Against forgery, the file may name no type that a head
of its kind is not made of; and since a type says nothing about contents, every setting must be the one this library
makes, and every index that scikit-learn follows unchecked must stay inside its array.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import math
import warnings
import zipfile
from pathlib import Path
from typing import Any, get_args

import numpy as np

from pellucid.bundle.head import Head, Kind, make
from pellucid.errors import DataError, UsageError
from pellucid.files import read_bytes, read_json, write_bytes, write_json
from pellucid.files.read import parse_json

SKOPS, JSON = "head.skops", "head.json"

#: The largest head that is opened, in bytes.
LIMIT = 4 << 30

#: The largest number of an SVM, and one over the least that is divided by: their products stay within float32.
_LARGEST = 1e12

#: The oldest format of skops that is opened.
PROTOCOL = 2

_PLAIN = {
    ("DictNode", "builtins.dict"),
    ("JsonNode", "builtins.str"),
    ("ListNode", "builtins.list"),
    ("TupleNode", "builtins.tuple"),
    ("TypeNode", "builtins.str"),
    ("NdArrayNode", "numpy.ndarray"),
    ("NdArrayNode", "numpy.int64"),
    ("NdArrayNode", "numpy.float64"),
}
_TREE = "sklearn.tree._tree.Tree"
_SOME_TREES = {("ObjectNode", "sklearn.tree._classes.DecisionTreeClassifier"), ("TreeNode", _TREE)}

#: The types that each kind of head is made of, as (skops' node, type); a file that names any other is refused.
ALLOWED: dict[Kind, set[tuple[str, str]]] = {
    "svm": _PLAIN
    | {
        ("ObjectNode", "sklearn.pipeline.Pipeline"),
        ("ObjectNode", "sklearn.preprocessing._data.StandardScaler"),
        ("ObjectNode", "sklearn.svm._classes.LinearSVC"),
    },
    "tree": _PLAIN | _SOME_TREES,
    "forest": _PLAIN | _SOME_TREES | {("ObjectNode", "sklearn.ensemble._forest.RandomForestClassifier")},
    "knn": _PLAIN | {("ObjectNode", "sklearn.neighbors._classification.KNeighborsClassifier")},
}


def save_head(head: Head, folder: Path) -> None:
    """Write `head.skops` and `head.json`. Equal heads give equal bytes."""
    skops_io = _skops()
    import sklearn  # noqa: PLC0415

    data = _canonical(skops_io.dumps(head.estimator))
    write_bytes(folder / SKOPS, data)
    write_json(
        folder / JSON,
        {
            "kind": head.kind,
            "classes": head.classes,
            "features": head.features,
            "seed": head.seed,
            "scale": head.scale,
            "scikit-learn": sklearn.__version__,
            "sha256": hashlib.sha256(data).hexdigest(),
        },
    )


def load_head(folder: Path) -> Head | None:
    """The head in a bundle's folder; None where there is none.

    Raises DataError for one that is damaged, was forged, or does not fit what `head.json` says of it.
    """
    path = folder / SKOPS
    if not (folder / JSON).exists() and not path.exists():
        return None
    settings = read_json(folder / JSON)
    try:
        kind: Kind = settings["kind"]
        classes, features, seed = (_whole(settings[key]) for key in ("classes", "features", "seed"))
        scale, made_with, checksum = float(settings["scale"]), str(settings["scikit-learn"]), str(settings["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / JSON}: not a head's settings ({error!r:.200}); train again") from error
    if kind not in get_args(Kind) or not (math.isfinite(scale) and 1 / _LARGEST <= scale <= _LARGEST):
        raise DataError(f"{folder / JSON}: no head of kind {kind!r:.40} and scale {scale:g} is known; train again")
    data = read_bytes(path, limit=LIMIT)
    if hashlib.sha256(data).hexdigest() != checksum:
        raise DataError(f"{path}: is not the file that {folder / JSON} was written for; copy the bundle whole")
    _refuse_other_types(data, kind, path)
    try:
        with warnings.catch_warnings():
            # Of another version of scikit-learn: the checks below, and the bundle's self-test, tell whether it matters.
            warnings.simplefilter("ignore")
            estimator = _skops().loads(data, trusted=[_TREE])
            _check(kind, estimator, classes, features, seed)
    except UsageError:
        raise
    except Exception as error:  # a forged file can fail anywhere in the readers
        raise DataError(
            f"{path}: not a head of kind {kind} that this library makes ({_first_line(error)}); it was made with "
            f"scikit-learn {made_with:.20}: use that version, or train again"
        ) from error
    return Head(kind, estimator, classes, features, seed, scale)


def _skops() -> Any:
    try:
        # Imports all of scikit-learn, which a bundle without a head does without.
        return importlib.import_module("skops.io")
    except ImportError as error:
        raise UsageError("--head: heads are kept with skops, which is not installed: pip install skops") from error


def _canonical(data: bytes) -> bytes:
    """The same file without what changes from run to run: addresses as names, the time of day."""
    buffer, names = io.BytesIO(), dict[str, str]()
    count = 0

    def renumber(node: Any) -> None:
        nonlocal count
        if isinstance(node, dict):
            if "__id__" in node:
                count += 1
                node["__id__"] = count
            if isinstance(node.get("file"), str):
                node["file"] = names.setdefault(node["file"], f"{len(names)}.npy")
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            renumber(child)

    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        schema = json.loads(old.read("schema.json"))
        renumber(schema)
        contents = {to: old.read(name) for name, to in names.items()} | {"schema.json": json.dumps(schema).encode()}
        for name, content in contents.items():
            new.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def _refuse_other_types(data: bytes, kind: Kind, path: Path) -> None:
    """Refuse, before anything is built, what names a type that is not on the list, or unpacks to more than it is."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            entries = file.infolist()
            stored = _stored(entries, len(data))
            schema = parse_json(file.read("schema.json"), f"{path}: schema.json", depth=64) if stored else None
        found, files = _types(schema), _files(schema)
    except DataError:
        raise
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError, NotImplementedError, EOFError, OSError) as error:
        raise DataError(f"{path}: not a file of skops ({_first_line(error)}); copy the bundle whole") from error
    if not stored:
        raise DataError(f"{path}: is compressed, as no head is that this library writes; train again")
    protocol = schema.get("protocol") if isinstance(schema, dict) else None
    if type(protocol) is not int or protocol < PROTOCOL:
        # Older protocols have other readers, for which the list of types was not made.
        raise DataError(f"{path}: has protocol {protocol!r:.20} of skops, and {PROTOCOL} is expected; train again")
    if len(files) > len(set(files)):
        # skops would read it anew each time, and a short file could name a long one often.
        raise DataError(f"{path}: names one of its arrays twice, as no head does that this library writes; train again")
    other = sorted(f"{name} ({node})" for node, name in found - ALLOWED[kind])
    if other:
        named = ", ".join(other[:3]).encode("unicode_escape").decode()
        raise DataError(f"{path}: names {named:.200}, of which no head of kind {kind} is made: not opened")


def _stored(entries: list[zipfile.ZipInfo], size: int) -> bool:
    """Whether nothing in the archive unpacks to more than it takes there."""
    plain = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    return plain and sum(entry.file_size for entry in entries) <= size


def _types(node: Any) -> set[tuple[str, str]]:
    """Each (node, type) that skops would build."""
    found: set[tuple[str, str]] = set()
    if isinstance(node, dict):
        if "__loader__" in node or "__class__" in node or "__module__" in node:
            found.add((str(node.get("__loader__")), f"{node.get('__module__')}.{node.get('__class__')}"))
        children = list(node.values())
    else:
        children = node if isinstance(node, list) else []
    return found.union(*(_types(child) for child in children))


def _files(node: Any) -> list[str]:
    """Each array that skops would read, as often as it would."""
    own = [str(node["file"])] if isinstance(node, dict) and "file" in node else []
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return own + [file for child in children for file in _files(child)]


def _check(kind: Kind, estimator: Any, classes: int, features: int, seed: int) -> None:
    """Raise where settings or contents are not what `make` and `fit` give."""
    own = estimator.classes_
    _need(_integers(own) and own.ndim == 1 and len(own) >= 2, "its classes")
    _need(bool((np.diff(own) > 0).all()) and own[0] >= 0 and own[-1] < classes, "its classes")
    _need(estimator.n_features_in_ == features, "its number of features")
    if kind == "svm":
        _check_svm(estimator, make(kind, seed, 1), len(own), features)
    elif kind == "knn":
        _check_neighbours(estimator, seed, len(own), features)
    else:
        expected = make(kind, seed, 1)
        _same(estimator, expected)
        trees = estimator.estimators_ if kind == "forest" else [estimator]
        _need(estimator.n_outputs_ == 1 and estimator.n_classes_ == len(own), "its classes")
        _need(isinstance(trees, list) and len(trees) == (expected.n_estimators if kind == "forest" else 1), "its trees")
        for tree in trees:
            _need(type(tree) is type(make("tree", seed, 1)) and tree.n_outputs_ == 1, "its trees")
            _need(tree.n_classes_ == len(own) and tree.n_features_in_ == features, "the classes of a tree")
            _check_tree(tree.tree_, len(own), features)


def _check_svm(estimator: Any, expected: Any, classes: int, features: int) -> None:
    _need(type(estimator) is type(expected) and len(estimator.steps) == 2, "its steps")
    _need(estimator.memory is None and not estimator.verbose, "its settings")
    for (name, step), (other, reference) in zip(estimator.steps, expected.steps, strict=True):
        _need(name == other, "its steps")
        _same(step, reference)
    scaler, svm = (step for _, step in estimator.steps)
    rows = 1 if classes == 2 else classes
    for values, shape in (
        (scaler.mean_, (features,)),
        (scaler.scale_, (features,)),
        (svm.coef_, (rows, features)),
        (svm.intercept_, (rows,)),
    ):
        _need(_floats(values) and values.shape == shape and bool((np.abs(values) <= _LARGEST).all()), "its numbers")
    _need(bool((scaler.scale_ >= 1 / _LARGEST).all()), "its scale")


def _check_neighbours(estimator: Any, seed: int, classes: int, features: int) -> None:
    pictures_nd, labels_n = estimator._fit_X, estimator._y
    _need(_floats(pictures_nd) and pictures_nd.ndim == 2 and pictures_nd.shape[1] == features, "its pictures")
    _need(pictures_nd.flags.c_contiguous and bool(np.isfinite(pictures_nd).all()), "its pictures")
    _need(_integers(labels_n) and labels_n.shape == (len(pictures_nd),), "its labels")
    _need(labels_n.min() >= 0 and labels_n.max() < classes, "its labels")
    _same(estimator, make("knn", seed, len(pictures_nd)))
    found = (estimator._fit_method, estimator.effective_metric_, estimator.effective_metric_params_, estimator._tree)
    _need(found == ("brute", "euclidean", {}, None), "its way to measure")
    _need(estimator.outputs_2d_ is False and estimator.n_samples_fit_ == len(pictures_nd), "its pictures")


def _check_tree(tree: Any, classes: int, features: int) -> None:
    """A tree whose every step leads further down and inside it, and asks for a feature that there is."""
    count = tree.node_count
    _need((tree.n_features, tree.n_outputs, tree.max_n_classes) == (features, 1, classes), "the shape of a tree")
    _need(tree.value.shape == (count, 1, classes) and bool(np.isfinite(tree.value).all()), "the values of a tree")
    here, left, right = np.arange(count), tree.children_left, tree.children_right
    leaf = left == -1
    # scikit-learn numbers children after their parents, so that a walk that only goes up in number ends.
    inside = (left > here) & (left < count) & (right > here) & (right < count)
    _need(count > 0 and bool((leaf | inside).all()), "the branches of a tree")
    asked = tree.feature[~leaf]
    _need(bool(((asked >= 0) & (asked < features)).all()), "the features of a tree")


def _same(estimator: Any, expected: Any) -> None:
    _need(type(estimator) is type(expected), "its type")
    _need(estimator.get_params(deep=False) == expected.get_params(deep=False), "its settings")


def _need(met: bool, what: str) -> None:
    if not met:
        raise ValueError(f"{what} cannot be")


def _floats(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype in {np.dtype(np.float32), np.dtype(np.float64)}


def _integers(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype == np.int64


def _whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.40} is no whole number")
    return value


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:160]

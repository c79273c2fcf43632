from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.guard import few, guarded
from tests.fuzz.mutate import Edit, byte_edits, changed, json_edits, mutated, with_header
from tests.fuzz.test_data import pickles

from pellucid import nets
from pellucid.bundle import Recogniser, load, save, verify
from pellucid.bundle.folder import png
from pellucid.bundle.head import fit_head
from pellucid.bundle.head_file import load_head, save_head
from pellucid.bundle.weights import read_weights
from pellucid.data.preprocess import Preprocess
from pellucid.errors import UsageError
from pellucid.nets.notation import read as read_notation
from pellucid.nets.plan import plan

NET = "INPUT -> CONV(3, norm=batch) -> POOL -> FC(classes)"
VAL = {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "n": 9, "baseline": 0.5, "per_class": []}
FACTS = {"data": "d", "version": "0", "epochs": 1, "epoch": 1, "seed": 0, "train_n": 9, "val": VAL}
FILES = ("config.json", "preprocessor_config.json", "model.safetensors", "selftest/expected.json", "selftest/0.png")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
    model = nets.build(NET, 2, (1, 8, 8), seed=0).eval()
    saved = Recogniser(model, ("a", "b"), Preprocess((8, 8), "crop", 1, (0.3,), (0.4,)), NET)
    save(saved, folder, examples=[(f"{i}.png", png(x)) for i, x in enumerate(pixels)], facts=FACTS)
    return folder


@given(file=st.sampled_from(FILES), edits=byte_edits, values=json_edits, inside=st.booleans())
@few(250)
def test_bundles(
    tmp_path_factory: pytest.TempPathFactory,
    sound: Path,
    file: str,
    edits: list[Edit],
    values: list[Edit],
    *,
    inside: bool,
) -> None:
    folder = _fresh(tmp_path_factory)
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    whole = (sound / file).read_bytes()
    if inside and file.endswith("json"):
        data = changed(json.loads(whole), values)
    elif inside and file.endswith("safetensors"):
        data = with_header(whole, values)
    else:
        data = mutated(whole, edits)
    (folder / file).write_bytes(data)

    def read() -> Recogniser:
        found = load(folder)
        answers = found.predict([sound / "selftest" / "0.png"])
        assert np.isclose(sum(answers[0].probabilities.values()), 1)
        assert list(answers[0].probabilities) == list(found.classes)
        return found

    guarded("bundle", folder, read, sane=lambda found: len(found.classes) >= 1)
    guarded("self-test", folder, lambda: verify(folder), sane=lambda _: _means_the_same(data, whole, file))


def _means_the_same(data: bytes, whole: bytes, file: str) -> bool:
    """What verifies is what was saved; the expectation itself may be written otherwise, or its logits be as near."""
    return data == whole or file == "selftest/expected.json"


_WORDS = st.sampled_from(
    re.findall(
        r"\S+",
        "INPUT -> -> -> -> CONV POOL FC DROPOUT NORM RELU [ ] ( ) ( ) , , = * * ? 2 3 32 1000 1000000 10000 classes "
        "kernel stride padding same valid norm batch dilation groups upsample transposed ADD 0.5 1e9 -1 × → "
        "99999999999999999999",
    )
)


@given(words=st.lists(_WORDS, min_size=3, max_size=30), edits=byte_edits, sides=st.sampled_from((1, 8, 64, 4096)))
@few(200)
def test_notations(tmp_path: Path, words: list[str], edits: list[Edit], sides: int) -> None:
    text = "INPUT -> " + " ".join(words) if len(words) % 2 else mutated(NET.encode(), edits).decode("utf-8", "replace")

    def read() -> Any:
        return plan(read_notation(text), (3, sides, sides), 2)

    guarded("notation", tmp_path, read)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    found = {}
    for kind in ("svm", "tree", "knn"):
        found[kind] = tmp_path_factory.mktemp(kind)
        save_head(fit_head(kind, x, np.arange(30) % 2, 0), found[kind])
    return found


@given(
    kind=st.sampled_from(("svm", "tree", "knn")),
    how=st.sampled_from(("schema", "array", "bytes", "settings")),
    edits=byte_edits,
    values=json_edits,
)
@few(150)
def test_heads(
    tmp_path_factory: pytest.TempPathFactory,
    heads: dict[str, Path],
    kind: str,
    how: str,
    edits: list[Edit],
    values: list[Edit],
) -> None:
    folder = _fresh(tmp_path_factory)
    data, settings = (heads[kind] / "head.skops").read_bytes(), json.loads((heads[kind] / "head.json").read_bytes())
    if how == "bytes":
        data = mutated(data, edits)
    elif how != "settings":
        data = _rezipped(data, how, edits, values)
    settings["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "head.skops").write_bytes(data)
    (folder / "head.json").write_bytes(
        changed(settings, values) if how == "settings" else json.dumps(settings).encode()
    )
    x = np.zeros((3, 4), np.float32)

    def read() -> Any:
        found = load_head(folder)
        if found is None or (found.features, found.classes) != (4, 2):
            # `attach` refuses a head for another network.
            return None
        return found.probabilities(x)

    guarded("head", folder, read, sane=lambda p: p is None or (p.shape == (3, 2) and bool(np.isfinite(p).all())))


def _rezipped(data: bytes, how: str, edits: list[Edit], values: list[Edit]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        arrays = [name for name in old.namelist() if name.endswith("npy")]
        for name in old.namelist():
            content = old.read(name)
            if name == "schema.json" and how == "schema":
                content = changed(json.loads(content), values)
            if how == "array" and arrays and name == arrays[edits[0][1] % len(arrays)]:
                content = mutated(content, edits)
            new.writestr(name, content)
    return buffer.getvalue()


STATE = {"conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "half": torch.ones(5, dtype=torch.bfloat16)}


def _saved(kind: str, path: Path) -> bytes:
    if kind == "safetensors":
        safetensors.torch.save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    return path.read_bytes()


@given(
    kind=st.sampled_from(("safetensors", "zip", "legacy")),
    edits=byte_edits,
    values=json_edits,
    how=st.integers(0, 2),
    forged=pickles,
)
@few(250)
def test_weights(
    tmp_path_factory: pytest.TempPathFactory, kind: str, edits: list[Edit], values: list[Edit], how: int, forged: bytes
) -> None:
    path = _fresh(tmp_path_factory) / ("w.safetensors" if kind == "safetensors" else "w.pth")
    whole = _saved(kind, path)
    if kind == "safetensors":
        data = with_header(whole, values) if how else mutated(whole, edits)
    elif kind == "legacy":
        data = forged if how == 2 else mutated(whole, edits)
    else:
        data = _with_pickle(whole, forged if how == 2 else None, edits) if how else mutated(whole, edits)
    path.write_bytes(data)

    def sane(found: Any) -> bool:
        return bool(sum(tensor.nbytes for tensor in found.tensors.values()) <= 4 * len(data))

    guarded(f"weights {kind}", path.parent, lambda: read_weights(path), sane=sane)


def _with_pickle(whole: bytes, forged: bytes | None, edits: list[Edit]) -> bytes:
    """The archive with its pickle changed inside, checksums and all in order."""
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if edits[0][1] % 5 == 0 else zipfile.ZIP_STORED
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(buffer, "w", method) as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                content = mutated(content, edits) if forged is None else forged
            new.writestr(name, content)
    return buffer.getvalue()


def test_a_place_that_is_no_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_weights(str(tmp_path / "x.bin") if (tmp_path / "x.bin").write_bytes(b"x") else "")


def _fresh(factory: pytest.TempPathFactory) -> Path:
    folder = factory.getbasetemp() / "fresh"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder

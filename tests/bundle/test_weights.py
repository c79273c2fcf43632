from __future__ import annotations

import builtins
import collections
import hashlib
import json
import os
import re
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from pellucid import nets
from pellucid.bundle import Recogniser, save
from pellucid.bundle.folder import png
from pellucid.bundle.weights import IMAGENET_MEAN, IMAGENET_STD, imagenet_preprocess, read_weights
from pellucid.data.preprocess import Preprocess
from pellucid.data.record import Row, write_record
from pellucid.errors import DataError, PellucidError, UsageError

PREPROCESS = Preprocess((16, 16), "crop", 3, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
VAL = {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "n": 9, "baseline": 0.5, "per_class": []}
FACTS = {"data": "d", "version": "0", "epochs": 1, "epoch": 1, "seed": 0, "train_n": 9, "val": VAL}


def some() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"conv.weight": torch.randn(4, 3, 3, 3, generator=generator), "fc.bias": torch.arange(4.0)}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".PTH"])
def test_a_file_of_weights_is_read_as_it_is(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    save_file = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save_file(some(), path)
    found = read_weights(path)
    assert same(found.tensors, some())
    assert found.origin == str(path)
    assert (found.classes, found.network, found.preprocess) == (None, None, None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_half_precision_becomes_float32_exactly(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    half = {name: tensor.to(dtype) for name, tensor in some().items()} | {"n": torch.tensor(3)}
    path = tmp_path / f"w{suffix}"
    (safetensors.torch.save_file if suffix == ".safetensors" else torch.save)(half, path)
    found = read_weights(path).tensors
    assert {found[name].dtype for name in some()} == {torch.float32}
    assert found["n"].dtype == torch.int64
    assert all(torch.equal(found[name], half[name].float()) for name in some())


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_a_checkpoint_has_its_weights_under_a_key(tmp_path: Path, wrapper: str) -> None:
    path = tmp_path / "checkpoint.pth"
    state = collections.OrderedDict(some())
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, wrapper: state}, path)
    assert same(read_weights(path).tensors, some())


class Hostile:
    """What a pickle could hold: it makes a file when it is opened carelessly."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.proof),)


def test_a_hostile_file_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    path, proof = tmp_path / "w.pth", tmp_path / "ran"
    torch.save({"state_dict": {**some(), "x": Hostile(proof)}}, path)
    with pytest.raises(DataError, match=r"w\.pth: cannot be opened as weights alone, without running code"):
        read_weights(path)
    assert not proof.exists()
    # The file is what it claims to be: opened carelessly, it does run.
    torch.load(path, weights_only=False)
    assert proof.exists()


def test_a_whole_network_pickled_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(DataError, match=r"have whoever made it save model\.state_dict\(\)"):
        read_weights(path)


@pytest.mark.parametrize("content", [b"", b"not a file of torch", b"PK\x03\x04 torn", b"\x80\x02}q\x00."])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"w{suffix}"
        path.write_bytes(content)
        with pytest.raises(DataError, match=re.escape(str(path))):
            read_weights(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "an empty dict"),
        ([torch.zeros(2)], "holds a list and not a network's weights by name"),
        ({"a": torch.zeros(2), "b": 3}, "'b' is a int and no tensor"),
        ({1: torch.zeros(2)}, "the name 1 is no text"),
        ({"a": torch.zeros(1).expand(10**15)}, "not a plain tensor"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "not a plain tensor"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "not a plain tensor"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any, sentence: str) -> None:
    path = tmp_path / "w.pth"
    torch.save(content, path)
    with pytest.raises(DataError, match=sentence):
        read_weights(path)


def test_a_bfloat16_file_that_lies_about_its_lengths_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    header = json.dumps({"a": {"dtype": "BF16", "shape": [1 << 40], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(DataError, match=re.escape(str(path))):
        read_weights(path)


def test_what_is_no_place_for_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"w\.h5: expected a \.safetensors"):
        read_weights(tmp_path / "w.h5")
    with pytest.raises(DataError, match="no such file"):
        read_weights(tmp_path / "nothing")
    for name in ("w.pth", "w.safetensors"):
        with pytest.raises(DataError, match="no such file"):
            read_weights(tmp_path / name)
    with pytest.raises(DataError, match="no trained model in this folder"):
        read_weights(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    model = nets.build("quick", 2, (3, 16, 16), seed=1).eval()
    example = png(np.zeros((16, 16, 3), np.uint8))
    recogniser = Recogniser(model, ("a", "图"), PREPROCESS, "quick")
    save(recogniser, tmp_path / "run" / "bundle", examples=[("a.png", example)], facts=FACTS)
    return tmp_path / "run"


def test_a_run_brings_its_classes_network_and_preprocessing(run: Path) -> None:
    for where in (run, run / "bundle"):
        found = read_weights(where)
        assert same(found.tensors, dict(nets.build("quick", 2, (3, 16, 16), seed=1).state_dict()))
        assert (found.classes, found.network, found.preprocess) == (("a", "图"), "quick", PREPROCESS)
        assert found.origin == str(where)


def test_a_run_with_a_broken_configuration_is_refused(run: Path) -> None:
    path = run / "bundle" / "config.json"
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**config, "id2label": 3}), encoding="utf-8")
    with pytest.raises(DataError, match="not a bundle's configuration"):
        read_weights(run)
    # Somebody else's folder of the same layout: its numbers are taken, its words are not.
    path.write_text(json.dumps({"model_type": "resnet", "id2label": 3}), encoding="utf-8")
    assert read_weights(run).classes is None


class Hub:
    """A hub with one repository, which notes what is fetched."""

    def __init__(self, folder: Path, files: dict[str, dict[str, torch.Tensor]]) -> None:
        self.folder, self.files = folder, files
        self.fetched: list[tuple[str, str, str | None]] = []

    def list_repo_files(self, repository: str, *, revision: str | None) -> list[str]:
        if repository != "timm/net":
            raise ConnectionError("404\nmore")
        return [*self.files, "pytorch_model.bin", "config.json"]

    def hf_hub_download(self, repository: str, file: str, *, revision: str | None) -> str:
        self.fetched.append((repository, file, revision))
        path = self.folder / file
        safetensors.torch.save_file(self.files[file], path)
        return str(path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path, {"model.safetensors": some(), "other.safetensors": {}})
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return hub


def test_the_hub_is_asked_for_safetensors_alone(hub: Hub) -> None:
    found = read_weights("hf:timm/net")
    assert same(found.tensors, some())
    assert found.origin == "hf:timm/net"
    read_weights("hf:timm/net@v2")
    name = "model.safetensors"
    assert hub.fetched == [("timm/net", name, None), ("timm/net", name, "v2")]


def test_weights_in_several_parts_are_put_together(hub: Hub) -> None:
    parts = [{name: tensor} for name, tensor in some().items()]
    hub.files = {f"model-0000{i + 1}-of-00002.safetensors": part for i, part in enumerate(parts)}
    assert same(read_weights("hf:timm/net").tensors, some())
    hub.files = dict.fromkeys(hub.files, parts[0])
    with pytest.raises(DataError, match="stands in two of its files"):
        read_weights("hf:timm/net")


@pytest.mark.parametrize(("files", "found"), [([], "none"), (["a.safetensors", "b.safetensors"], "2 of them")])
def test_a_repository_without_one_file_of_weights_is_refused(hub: Hub, files: list[str], found: str) -> None:
    hub.files = dict.fromkeys(files, some())
    with pytest.raises(DataError, match=f"found {found}"):
        read_weights("hf:timm/net")
    assert not hub.fetched


def test_a_hub_that_does_not_answer_is_a_sentence(hub: Hub) -> None:
    with pytest.raises(PellucidError, match=r"hf:timm/no: could not be fetched \(ConnectionError: 404\)") as caught:
        read_weights("hf:timm/no")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("text", ["hf:", "hf:timm", "hf:timm/", "hf:/net", "hf:a/b/c"])
def test_a_name_the_hub_cannot_have_is_refused(hub: Hub, text: str) -> None:
    with pytest.raises(UsageError, match="expected hf:owner/name"):
        read_weights(text)


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return whole(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'pellucid\[hub\]'"):
        read_weights("hf:timm/net")


def test_no_file_asks_for_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace())
    torch.save(some(), tmp_path / "w.pth")
    read_weights(tmp_path / "w.pth")


def test_the_hubs_own_client_takes_what_it_is_given() -> None:
    """The names and arguments used above are those of the real library; nothing is fetched."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    import inspect

    assert {"repo_id", "revision"} <= set(inspect.signature(huggingface_hub.list_repo_files).parameters)
    parameters = list(inspect.signature(huggingface_hub.hf_hub_download).parameters)
    assert parameters[:2] == ["repo_id", "filename"]
    assert "revision" in parameters


def test_imagenets_normalisation() -> None:
    preprocess = imagenet_preprocess((224, 200))
    assert (preprocess.size, preprocess.resize, preprocess.channels) == ((224, 200), "crop", 3)
    white = torch.full((1, 224, 200, 3), 255, dtype=torch.uint8)
    expected = [(1 - mean) / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    assert preprocess.normalise(white)[0, :, 0, 0].tolist() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(DataError, match="resize 'squash'"):
        imagenet_preprocess((224, 224), "squash")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_are_pinned_by_their_checksum(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(f"w{suffix}")
    write = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    write(some(), path)
    pinned = read_weights(path).pinned
    assert pinned == f"{tmp_path / path}#sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    again = read_weights(pinned)
    assert same(again.tensors, some())
    assert (again.origin, again.pinned) == (str(tmp_path / path), pinned)
    write({**some(), "fc.bias": torch.arange(4.0) + 1}, path)
    assert read_weights(path).pinned != pinned
    with pytest.raises(DataError, match="these are not the weights that the recipe was written for") as caught:
        read_weights(pinned)
    assert str(caught.value).startswith(f"{tmp_path / path}: ")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_a_run_is_pinned_by_everything_that_is_read_there(run: Path, file: str) -> None:
    pinned = read_weights(run).pinned
    assert pinned.startswith(f"{run}#sha256:")
    assert read_weights(pinned).pinned == pinned
    path = run / "bundle" / file
    if file == "model.safetensors":
        arrays = safetensors.torch.load_file(path)
        safetensors.torch.save_file({name: value + 1 for name, value in arrays.items()}, path)
    else:
        # Another order of the same values is another file, and not worth a closer look.
        path.write_text(path.read_text("utf-8") + " ", encoding="utf-8")
    with pytest.raises(DataError, match="these are not the weights"):
        read_weights(pinned)


def test_a_runs_record_is_read_and_pinned(run: Path) -> None:
    assert read_weights(run).record == ()
    pinned = read_weights(run).pinned
    rows = [Row("a.png", "a", "train", "0" * 16), Row("b.png", "b", "val", "1" * 16)]
    write_record(run, rows)
    assert list(read_weights(run).record) == rows
    with pytest.raises(DataError, match="these are not the weights"):
        read_weights(pinned)


def test_a_repository_is_pinned_at_its_commit(hub: Hub, tmp_path: Path) -> None:
    # A client without such folders: the place as it was given.
    assert read_weights("hf:timm/net@v2").pinned.startswith("hf:timm/net@v2#sha256:")
    commit = "0123456789abcdef0123456789abcdef01234567"
    hub.folder = tmp_path / "snapshots" / commit
    hub.folder.mkdir(parents=True)
    pinned = read_weights("hf:timm/net").pinned
    checksum = hashlib.sha256((hub.folder / "model.safetensors").read_bytes()).hexdigest()
    assert pinned == f"hf:timm/net@{commit}#sha256:{checksum}"
    assert same(read_weights(pinned).tensors, some())
    assert hub.fetched[-1][2] == commit
    hub.files["model.safetensors"] = {"conv.weight": torch.zeros(1)}
    with pytest.raises(DataError, match=rf"hf:timm/net@{commit}: these are not the weights"):
        read_weights(pinned)


def test_a_name_that_only_looks_pinned_is_a_file_of_that_name(tmp_path: Path) -> None:
    path = tmp_path / "w#sha256:0.pth"
    torch.save(some(), path)
    assert same(read_weights(path).tensors, some())
    assert same(read_weights(read_weights(path).pinned).tensors, some())


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1 << 20)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as old,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert (tmp_path / "bomb.pth").stat().st_size < 1 << 14
    with pytest.raises(DataError, match=r"bomb\.pth: unpacks to more than it is, as no file of torch\.save does"):
        read_weights(tmp_path / "bomb.pth")


def test_a_tensor_that_claims_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "legacy.pth"
    torch.save({"w": torch.zeros(10, dtype=torch.float16)}, path, _use_new_zipfile_serialization=False)
    raw = path.read_bytes()
    # The number of the storage's elements, as the pickle has it: ten become two thousand millions.
    lie = raw.replace(b"K\nN", b"J\xff\xff\xff\x7fN", 1)
    assert lie != raw
    path.write_bytes(lie)
    with pytest.raises(DataError):
        read_weights(path)

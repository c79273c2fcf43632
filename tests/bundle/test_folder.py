from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pellucid import nets
from pellucid.bundle import Recogniser, load, save, verify
from pellucid.bundle.folder import png
from pellucid.bundle.recogniser import infer
from pellucid.bundle.selftest import EXPECTED, sums
from pellucid.data.preprocess import Preprocess
from pellucid.errors import DataError, PellucidError, UsageError, VerificationError

VAL = {
    "accuracy": 0.9,
    "accuracy_low": 0.8,
    "accuracy_high": 0.95,
    "n": 100,
    "baseline": 0.4,
    "per_class": [
        {"class": "a|b", "precision": None, "recall": 0.5, "f1": None, "support": 3},
        {"class": "玫瑰", "precision": 1.0, "recall": 0.5, "f1": 0.7, "support": 4},
    ],
}
FACTS = {
    "data": 'flowers "2"', "version": "0", "epochs": 3, "epoch": 2, "seed": 0, "train_n": 10, "val": VAL,
}  # fmt: skip
CLASSES = ("a|b", "玫瑰")
PREPROCESS = Preprocess((24, 24), "crop", 3, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def raw(seed: int, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def recogniser(dtype: torch.dtype = torch.float32, net: str = "quick(32)") -> Recogniser:
    model = nets.build(net, 2, (3, 24, 24), seed=3).to(dtype).eval()
    return Recogniser(model, CLASSES, PREPROCESS, net)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(recogniser(), tmp_path / "b", examples=[("x/1.jpg", raw(1)), ("2.png", raw(2, "PNG"))], facts=FACTS)
    return tmp_path / "b"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("net", ["quick(32)", "INPUT -> [CONV(4) -> POOL]*2 -> FC(classes)"])
def test_a_network_comes_back_to_the_bit(tmp_path: Path, dtype: torch.dtype, net: str) -> None:
    saved = recogniser(dtype, net)
    save(saved, tmp_path, examples=[("1.jpg", raw(1))], facts=FACTS)
    loaded = load(tmp_path)
    assert (loaded.classes, loaded.preprocess, loaded.network) == (CLASSES, PREPROCESS, net)
    for (name, a), (other, b) in zip(saved.model.state_dict().items(), loaded.model.state_dict().items(), strict=True):
        assert name == other
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    assert not loaded.model.training


def test_no_file_of_a_bundle_is_a_pickle(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            head = path.read_bytes()[:2]
            # A pickle begins with its protocol, a torch or zip archive with PK.
            assert head not in {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"}


def test_the_configuration_has_hugging_faces_keys(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["id2label"] == {"0": "a|b", "1": "玫瑰"}
    assert config["label2id"] == {"a|b": 0, "玫瑰": 1}
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
    assert preprocessor["image_mean"] == [0.4, 0.5, 0.6]


def test_the_card_says_what_was_measured(folder: Path) -> None:
    card = (folder / "README.md").read_text("utf-8")
    front = card.split("---")[1]
    assert 'datasets: ["flowers \\"2\\""]' in front
    assert "pipeline_tag: image-classification" in front
    assert "0.900 (95 % interval 0.800 to" in card
    assert "| a\\|b | – | 0.500 | – | 3 |" in card


def test_a_bundle_verifies_where_it_was_made(folder: Path) -> None:
    assert verify(folder) < 1e-5


def test_other_weights_do_not_verify(folder: Path) -> None:
    from pellucid.files import read_tensors, write_tensors

    arrays = read_tensors(folder / "model.safetensors")
    arrays["head.weight"] = arrays["head.weight"] * np.float32(1.01)
    write_tensors(folder / "model.safetensors", arrays, {})
    with pytest.raises(VerificationError, match=r"model\.safetensors: is not the file that was saved"):
        verify(folder)
    recorded(folder)
    with pytest.raises(VerificationError, match="logits differ from those recorded"):
        verify(folder)


def test_a_weight_that_is_not_a_number_does_not_verify(folder: Path) -> None:
    from pellucid.files import read_tensors, write_tensors

    arrays = read_tensors(folder / "model.safetensors")
    arrays["head.bias"] = np.full_like(arrays["head.bias"], np.nan)
    write_tensors(folder / "model.safetensors", arrays, {})
    with pytest.raises(DataError, match=r"'head\.bias' holds what is no finite number"):
        verify(folder)


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("config.json", {"id2label": {"0": "a", "2": "b"}}, "not a bundle's configuration"),
        ("config.json", {"dtype": "int8"}, "not a bundle's configuration"),
        ("config.json", {"network": "resnet9000"}, "its network cannot be built"),
        ("config.json", {"network": "INPUT -> FC(classes)"}, "the weights are of another network"),
        (
            "config.json",
            {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}},
            r"head\.(weight|bias) is",
        ),
        ("config.json", {"id2label": {"0": "玫瑰", "1": "a|b"}}, "not a bundle's configuration .*do not agree"),
        ("config.json", {"id2label": {"0": "a", "1": "a"}, "label2id": {"a": 1}}, "not a bundle's configuration"),
        ("config.json", {"id2label": {"0": "a", "1": "\udc80"}, "label2id": {"a": 0, "\udc80": 1}}, "configuration"),
        ("config.json", {"network": "mlp(40000, 40000)"}, "the weights are of another network"),
        ("config.json", {"id2label": 3}, "not a bundle's configuration"),
        ("preprocessor_config.json", {"image_std": [0, 0, 0]}, "std"),
    ],
)
def test_a_bundle_that_does_not_fit_together_is_refused(
    folder: Path, file: str, change: dict[str, Any], sentence: str
) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **change}), encoding="utf-8")
    with pytest.raises(DataError, match=sentence):
        load(folder)


def test_a_self_test_does_not_read_outside_its_folder(folder: Path) -> None:
    path = folder / "selftest" / "expected.json"
    change(path, lambda found: found["pictures"][0].update(file="../config.json"))
    with pytest.raises(DataError, match="lies outside the self-test's folder"):
        verify(folder)


def change(path: Path, how: Callable[[Any], Any]) -> None:
    """Change a JSON file's value in place."""
    value = json.loads(path.read_text("utf-8"))
    how(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def recorded(folder: Path) -> None:
    """Have the self-test expect the files as they are now."""
    now = {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in sums(folder)}
    change(folder / EXPECTED, lambda found: found.update(sha256=now))


def flipped(path: Path, at: int) -> None:
    """One bit of a file the other way."""
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(bytes(raw))


def swapped(folder: Path) -> None:
    """The pictures of the self-test under each other's names."""
    one, two = (folder / "selftest" / name for name in ("0.jpg", "1.png"))
    a, b = one.read_bytes(), two.read_bytes()
    one.write_bytes(b)
    two.write_bytes(a)


def piped(folder: Path) -> None:
    (folder / "selftest" / "0.jpg").unlink()
    os.mkfifo(folder / "selftest" / "0.jpg")


def renamed(config: Any) -> None:
    config["id2label"]["0"] = "rose"
    config["label2id"] = {"rose": 0, "玫瑰": 1}


def reordered(config: Any) -> None:
    config["id2label"], config["label2id"] = {"0": "玫瑰", "1": "a|b"}, {"玫瑰": 0, "a|b": 1}


BROKEN: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "a weight's last bit": (
        lambda b: flipped(b / "model.safetensors", -4),
        VerificationError,
        "model.safetensors: is not",
    ),
    "a class's name": (lambda b: change(b / "config.json", renamed), VerificationError, "config.json: is not the file"),
    "the classes' order": (lambda b: change(b / "config.json", reordered), VerificationError, "config.json: is not"),
    "one of two maps": (
        lambda b: change(b / "config.json", lambda c: c.update(label2id={})),
        DataError,
        "do not agree",
    ),
    "the mean": (
        lambda b: change(b / "preprocessor_config.json", lambda c: c.update(image_mean=[0.41, 0.5, 0.6])),
        VerificationError,
        "preprocessor_config.json: is not",
    ),
    "the way to resize": (
        lambda b: change(b / "preprocessor_config.json", lambda c: c.update(resize="stretch", size=c["crop_size"])),
        VerificationError,
        "preprocessor_config.json: is not",
    ),
    "the network": (
        lambda b: change(b / "config.json", lambda c: c.update(network="perceptron")),
        DataError,
        "another network",
    ),
    "pictures swapped": (swapped, VerificationError, "selftest/0.jpg: is not the file"),
    "a picture gone": (lambda b: (b / "selftest" / "0.jpg").unlink(), VerificationError, "'selftest/0.jpg' is missing"),
    "no self-test": (lambda b: shutil.rmtree(b / "selftest"), DataError, "expected.json: there is no such file"),
    "no pictures in it": (
        lambda b: change(b / EXPECTED, lambda e: e.update(pictures=[])),
        DataError,
        "carries no pictures to test itself with",
    ),
    "no checksums in it": (
        lambda b: change(b / EXPECTED, lambda e: e.update(sha256={})),
        DataError,
        "has no checksum of",
    ),
    "one checksum taken out": (
        lambda b: change(b / EXPECTED, lambda e: e["sha256"].pop("config.json")),
        VerificationError,
        "config.json: is no part of the bundle as it was saved",
    ),
    "other logits": (
        lambda b: change(b / EXPECTED, lambda e: e["pictures"][1].update(logits=[0.0, 1.0])),
        VerificationError,
        "logits differ from those recorded",
    ),
    "no logits": (
        lambda b: change(b / EXPECTED, lambda e: e["pictures"][1].update(logits=[])),
        VerificationError,
        "2 logits, expected 0",
    ),
    "a head added": (
        lambda b: (b / "head.json").write_text("{}"),
        DataError,
        "not a head's settings",
    ),
    "a picture that is a pipe": (
        piped,
        DataError,
        "no regular file",
    ),
    "a picture's name with a zero in it": (
        lambda b: change(b / EXPECTED, lambda e: e["pictures"][0].update(file="a\0b")),
        DataError,
        "has no checksum of",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_was_changed_in_a_bundle_is_noticed(folder: Path, what: str) -> None:
    assert verify(folder) < 1e-5
    how, kind, sentence = BROKEN[what]
    how(folder)
    with pytest.raises(kind, match=sentence) as caught:
        verify(folder)
    assert isinstance(caught.value, PellucidError)
    assert caught.value.exit_code in {3, 4}


def test_a_card_may_be_edited(folder: Path) -> None:
    (folder / "README.md").write_text("Mine.", encoding="utf-8")
    (folder / "selftest" / ".DS_Store").write_bytes(b"")
    assert verify(folder) < 1e-5


def test_what_is_no_run_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load(tmp_path / "nothing")
    with pytest.raises(DataError, match="no trained model in this folder"):
        load(tmp_path)


def test_a_network_of_ones_own_must_be_given(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 2))
    own = Recogniser(model, CLASSES, PREPROCESS, "custom")
    save(own, tmp_path, examples=[("1.jpg", raw(1))], facts=FACTS)
    with pytest.raises(UsageError, match="give it too"):
        load(tmp_path)
    again = load(tmp_path, net=nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 2)))
    pixels = np.zeros((1, 24, 24, 3), np.uint8)
    assert np.array_equal(infer(again.model, PREPROCESS, pixels), infer(model, PREPROCESS, pixels))


def test_png_keeps_every_pixel() -> None:
    for channels in (1, 3):
        pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
        back = np.asarray(Image.open(io.BytesIO(png(pixels))))
        assert np.array_equal(back.reshape(pixels.shape), pixels)


def test_the_card_says_where_the_weights_came_from_and_what_stands_on_top(tmp_path: Path) -> None:
    from pellucid.bundle.head import attach, fit_head

    plain = (tmp_path / "plain", recogniser(), {**FACTS, "weights": "hf:timm/`net`"})
    headed = recogniser()
    features_nd = np.random.default_rng(0).normal(size=(20, 128)).astype(np.float32)
    attach(headed.model, fit_head("tree", features_nd, np.arange(20) % 2, 0))
    cards = []
    for folder, it, facts in (plain, (tmp_path / "headed", headed, {**FACTS, "epochs": None, "epoch": 0})):
        save(it, folder, examples=[("2.png", raw(2, "PNG"))], facts=facts)
        cards.append((folder / "README.md").read_text("utf-8"))
    assert "- Began with the weights of `hf:timm/'net'`.\n- Trained on 10 pictures" in cards[0]
    assert "expect slightly less on new ones" in cards[0]
    assert "Began" not in cards[1]
    assert "scikit-learn's in the last layer's place: `tree`" in cards[1]
    assert "The head was fitted on 10 pictures" in cards[1]
    assert "chosen on these pictures" not in cards[1]
    assert "epoch" not in cards[1]

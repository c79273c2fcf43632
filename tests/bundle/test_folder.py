from __future__ import annotations

import io
import json
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
from pellucid.data.preprocess import Preprocess
from pellucid.errors import DataError, UsageError, VerificationError

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
    with pytest.raises(VerificationError, match="logits differ from those recorded"):
        verify(folder)


def test_a_weight_that_is_not_a_number_does_not_verify(folder: Path) -> None:
    from pellucid.files import read_tensors, write_tensors

    arrays = read_tensors(folder / "model.safetensors")
    arrays["head.bias"] = np.full_like(arrays["head.bias"], np.nan)
    write_tensors(folder / "model.safetensors", arrays, {})
    with pytest.raises(VerificationError):
        verify(folder)


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("config.json", {"id2label": {"0": "a", "2": "b"}}, "not a bundle's configuration"),
        ("config.json", {"dtype": "int8"}, "not a bundle's configuration"),
        ("config.json", {"network": "resnet9000"}, "its network cannot be built"),
        ("config.json", {"network": "INPUT -> FC(classes)"}, "the weights are of another network"),
        ("config.json", {"id2label": {"0": "a", "1": "b", "2": "c"}}, r"head\.(weight|bias) is"),
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
    path.write_text(json.dumps([{"file": "../config.json", "logits": [0, 0]}]), encoding="utf-8")
    with pytest.raises(DataError, match="lies outside the self-test's folder"):
        verify(folder)


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

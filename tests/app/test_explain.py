"""`pellucid explain`, from the command line."""

from __future__ import annotations

import base64
import functools
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import pellucid
from pellucid import bundle
from pellucid.bundle.head import fit_head
from pellucid.bundle.head_file import save_head


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("trained")
    settings: dict[str, Any] = {"precision": "float32", "layout": "nchw", "threads": 1, "clip_norm": 1.0}
    return Path(pellucid.train("digits", net="lenet5", out=base / "run", epochs=3, optimizer="adam", **settings))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real handwritten 3."""
    digits = load_digits()
    image = digits.images[digits.target == 3][0]
    path = tmp_path_factory.mktemp("pictures") / "3.png"
    Image.fromarray(np.rint(image * 255 / 16).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def explain(pellucid_command: Any) -> Any:
    return functools.partial(pellucid_command, "explain")


def test_without_an_address_it_shows_the_way_from_the_answer_to_a_pixel(
    explain: Any, trained: Path, picture: Path
) -> None:
    code, out, _ = explain(trained, picture)
    assert code == 0
    assert out.startswith(f"{picture}: 3 ")
    for part in (
        "conv1  ",
        "1×6×28×28",
        "average_pool",
        "the strongest path from fc2[0,3] (3)",
        "share of the one above",
    ):
        assert part in out, part
    offered = re.search(r"next     pellucid explain \S+ \S+ '(\S+)'", out)
    assert offered is not None
    code, out, _ = explain(trained, picture, offered[1])
    assert code == 0
    assert out.startswith(f"{offered[1]} = ")


def test_a_convolution_is_drawn_as_patch_times_kernel_and_checked(explain: Any, trained: Path, picture: Path) -> None:
    code, out, _ = explain(trained, picture, "conv1[2,10,12]")
    assert code == 0
    for part in ("conv1[0,2,10,12] = ", "Σ_c,k,l", "input[0,0,10..14,12..16]", "× conv1.weight[2,0]", "= products"):
        assert part in out, part
    numbers = re.search(r"recomputed (\S+), the engine has (\S+): residual (\S+),", out)
    assert numbers is not None
    value, engine, residual = map(float, numbers.groups())
    assert value == pytest.approx(engine, abs=1e-5)
    assert abs(residual) < 1e-5


def test_json_is_one_document_that_adds_up(explain: Any, trained: Path, picture: Path) -> None:
    code, out, _ = explain(trained, picture, "conv2[7,3,4]", "--json")
    assert code == 0
    document = json.loads(out)
    total = sum(term["contribution"] for term in document["terms"])
    assert total == pytest.approx(document["engine_value"], abs=1e-5)
    assert len(document["terms"]) == 6 * 25 + 1
    assert document["residual"] == pytest.approx(document["value"] - document["engine_value"])
    assert document["label"] == "3"
    assert sum(document["probabilities"].values()) == pytest.approx(1)


def test_json_without_an_address_lists_nodes_and_paths(explain: Any, trained: Path, picture: Path) -> None:
    document = json.loads(explain(trained, picture, "--json")[1])
    assert [node["op"] for node in document["nodes"] if node["name"] == "conv1"] == ["convolution"]
    links = document["paths"][0]["links"]
    assert links[0]["address"] == "fc2[0,3]"
    assert links[-1]["address"].startswith("input[")
    strength = np.prod([link["share"] for link in links])
    assert document["paths"][0]["strength"] == pytest.approx(strength)


def test_the_probabilities_are_those_of_predict(explain: Any, trained: Path, picture: Path) -> None:
    said = json.loads(explain(trained, picture, "--json")[1])["probabilities"]
    (predicted,) = bundle.load(trained).predict([picture])
    assert said == pytest.approx(predicted.probabilities, abs=1e-6)


def test_the_gradient_is_of_the_class_asked_for(explain: Any, trained: Path, picture: Path) -> None:
    for label in ("3", "8"):
        document = json.loads(explain(trained, picture, f"fc2.grad[{label}]", "--label", label, "--json")[1])
        # ∂L/∂z = p − 1 at the label.
        assert document["value"] == pytest.approx(document["probabilities"][label] - 1, abs=1e-5)


def test_gradients_are_of_the_runs_own_loss(explain: Any, picture: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"precision": "float32", "layout": "nchw", "threads": 1, "label_smoothing": 0.2}
    run = pellucid.train("digits", net="lenet5", out=tmp_path / "smoothed", epochs=1, **settings).folder
    document = json.loads(explain(run, picture, "fc2.grad[3]", "--label", "3", "--json")[1])
    # A fifth of the label is spread over all ten classes.
    assert document["value"] == pytest.approx(document["probabilities"]["3"] - 0.82, abs=1e-5)


def test_the_next_step_is_the_optimisers_own(explain: Any, trained: Path, picture: Path) -> None:
    code, out, _ = explain(trained, picture, "conv1.weight.next[3,0,1,1]")
    assert code == 0
    assert "adam" in out
    assert "conv1.weight.state.m[3,0,1,1]" in out
    assert "the run's last one (epoch 3" in out
    document = json.loads(explain(trained, picture, "conv1.weight.next[3,0,1,1]", "--json")[1])
    before = json.loads(explain(trained, picture, "conv1.weight[3,0,1,1]", "--json")[1])["value"]
    rate = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])["lr"]
    assert 0 < abs(document["value"] - before) < 10 * rate


def test_a_bundle_alone_has_no_step_to_tell(explain: Any, trained: Path, picture: Path) -> None:
    code, _, err = explain(trained / "bundle", picture, "conv1.weight.next[3,0,1,1]")
    assert code == 2
    assert "optimiser" in err


def test_the_raw_pixel_is_shown_at_the_input(explain: Any, trained: Path, picture: Path) -> None:
    code, out, _ = explain(trained, picture, "input[0,15,15]")
    assert code == 0
    recogniser = bundle.load(trained)
    raw = int(recogniser.read(picture)[15, 15, 0])
    assert f"({raw}/255 − " in out


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attributes if name in {"src", "href"}]


def test_the_page_needs_nothing_else(explain: Any, trained: Path, picture: Path, tmp_path: Path) -> None:
    code, out, _ = explain(trained, picture, "conv2[7,3,4]", "--html", tmp_path / "page.html")
    assert code == 0
    assert "page.html" in out
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert not tags.tags & {"script", "link", "iframe", "object"}
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in tags.sources)
    assert "url(" not in text
    for part in ("conv2[0,7,3,4]", "conv2.grad[0,7,3,4]", "Its strongest path", "conv2.weight.next[7,", "fc2"):
        assert part in text, part
    first = next(source for source in tags.sources if source.startswith("data:"))
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(first.partition(",")[2]))))
    np.testing.assert_array_equal(shown, bundle.load(trained).read(picture)[..., 0])


def test_names_in_the_page_are_text(explain: Any, trained: Path, picture: Path, tmp_path: Path) -> None:
    forged = tmp_path / "<img src=x onerror=alert(1)>.png"
    forged.write_bytes(picture.read_bytes())
    assert explain(trained, forged, "--html", tmp_path / "page.html")[0] == 0
    assert "<img src=x" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_head_is_left_out_and_this_is_said(explain: Any, trained: Path, picture: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    head = fit_head("knn", generator.normal(size=(40, 84)).astype(np.float32), np.arange(40) % 10, 0)
    shutil.copytree(trained / "bundle", tmp_path / "headed")
    save_head(head, tmp_path / "headed")
    code, out, _ = explain(tmp_path / "headed", picture)
    assert code == 0
    assert "the knn on top is left out" in out


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["conv9[0,0,0]"], 2, "did you mean"),
        (["conv1[9,0,0]"], 2, "(1, 6, 28, 28)"),
        (["--label", "nine"], 2, "'nine' is no class"),
        (["fc2.nxt[0]"], 2, "fc2.nxt"),
    ],
)
def test_mistakes_are_a_sentence(
    explain: Any, trained: Path, picture: Path, arguments: list[str], code: int, part: str
) -> None:
    found, out, err = explain(trained, picture, *arguments)
    assert found == code
    assert part in err
    assert not out


def test_a_picture_that_is_none(explain: Any, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "note.jpg").write_text("not a picture")
    code, _, err = explain(trained, tmp_path / "note.jpg")
    assert code == 3
    assert "note.jpg" in err
    assert explain(trained, tmp_path / "absent.jpg")[0] == 3
    assert explain(tmp_path / "no-run", tmp_path / "note.jpg")[0] == 3

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import font_manager

from pellucid import draw, nets
from pellucid.data.batches import Batches
from pellucid.data.mix import Mixed
from pellucid.data.preprocess import Preprocess
from pellucid.training.first import captions, drawable, look, show_first


def batches(*augment: str) -> Batches:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 8, 8, 3), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 3, (40,), generator=generator)
    return Batches(pixels, labels, Preprocess((8, 8), "crop", 3, (0.5,) * 3, (0.5,) * 3), augment, 20, seed=4)


def test_a_network_looks_at_training_pictures_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    model = nets.build("quick(2)", 3, (3, 8, 8), seed=0)
    monkeypatch.setattr(model, "look_at", seen.append)
    made = batches("flip", "shift")
    look(model, made)
    assert isinstance(made.pixels_nhwc, torch.Tensor)
    x_nchw = made.preprocess.normalise(made.pixels_nhwc, torch.float32)
    assert torch.equal(seen[0], x_nchw)
    monkeypatch.setattr("pellucid.training.first.LOOKED_AT", 10 * 8 * 8)
    look(model, made)
    assert seen[1].shape == (10, 3, 8, 8)
    assert all(any(torch.equal(x_chw, other) for other in x_nchw) for x_chw in seen[1])
    look(torch.nn.Linear(2, 2), made)  # a network of one's own has nothing to look with
    assert len(seen) == 2


@pytest.mark.parametrize("changes", [("flip", "shift"), ("mixup",)])
def test_the_sheet_shows_what_the_network_will_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: tuple[str, ...]
) -> None:
    drawn = {}

    def sheet(images: np.ndarray, texts: list[str], path: Path) -> None:
        drawn[path.name] = (images, texts)

    monkeypatch.setattr(draw, "contact_sheet", sheet)
    made = batches(*changes)
    show_first(tmp_path, made, "abc", None)
    images, texts = drawn["pictures.png"]
    x_nhwc, target = next(made.epoch(0))
    assert len(images) == len(texts) == 16
    assert np.array_equal(images, x_nhwc[:16].numpy())
    assert texts == captions(target, "abc")[:16]


def test_it_is_a_file_and_only_where_something_is_changed(tmp_path: Path) -> None:
    show_first(tmp_path, batches(), "abc", None)
    assert not list(tmp_path.iterdir())
    show_first(tmp_path, batches("flip"), "abc", None)
    assert (tmp_path / "pictures.png").read_bytes().startswith(b"\x89PNG")


def test_a_mixture_is_called_by_both_names_the_larger_first() -> None:
    mixed = Mixed(torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 2, 1]), torch.tensor([0.75, 0.25, 0.5, 1.0]))
    assert captions(mixed, ("cat", "dog", "owl")) == ["cat 75%\ndog 25%", "owl 75%\ndog 25%", "owl", "cat"]


def test_a_fault_of_the_drawing_does_not_cost_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(draw, "contact_sheet", broken)
    show_first(tmp_path, batches("flip"), "abc", None)


def test_names_that_no_font_has_are_numbered_as_in_the_confusion_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The letters of Linear A are in no font that comes along: of the sheet's captions, 𐘀 would be the first or so."""
    home = Path(mpl.get_data_path())
    entries = [entry for entry in font_manager.fontManager.ttflist if home in Path(entry.fname).parents]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_args, **_kwargs: [])
    classes = ["cat", "$5", "\U00010600", "#1"]
    assert drawable(classes) == ["cat", "$5", "#2", "#1"]
    note = draw.confusion(np.eye(4, dtype=np.int64), classes, tmp_path / "confusion.png")
    assert note is not None
    assert "#2 for" in note
    drawn: list[str] = []
    monkeypatch.setattr(draw, "contact_sheet", lambda _images, texts, _path: drawn.extend(texts))
    show_first(tmp_path, batches("flip"), classes, None)
    assert "#2" in drawn
    assert "\U00010600" not in drawn

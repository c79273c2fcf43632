from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pellucid
from pellucid import nets
from pellucid.bundle.folder import save
from pellucid.bundle.recogniser import Recogniser
from pellucid.data.batches import Batches
from pellucid.data.preprocess import Preprocess
from pellucid.errors import DataError, UsageError
from pellucid.recipe import Engine, Recipe, read_recipe, settle
from pellucid.training import Run, run
from pellucid.training.distil import SHARE, TEMPERATURE, Teacher, distilled, open_teacher, soft_loss
from pellucid.training.loop import Training
from pellucid.training.losses import make_loss

ENGINE = Engine(precision="float32", layout="nchw", threads=1)


def logits(n: int, k: int, seed: int) -> torch.Tensor:
    return 3 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bundled(folder: Path, classes: tuple[str, ...], preprocess: Preprocess, net: str = "mlp(8)") -> str:
    model = nets.build(net, len(classes), (preprocess.channels, *preprocess.size), seed=3)
    facts: dict[str, Any] = {"data": "d", "version": "0", "epochs": 1, "epoch": 1, "seed": 0, "train_n": 1}
    scores = {"accuracy": 1.0, "accuracy_low": 0.9, "accuracy_high": 1.0, "baseline": 0.5, "n": 1, "auc": None}
    recogniser = Recogniser(model.eval(), classes, preprocess, net)
    save(recogniser, folder, examples=[], facts={**facts, "val": {**scores, "balanced_accuracy": 1.0, "per_class": {}}})
    return str(folder)


def preprocess(height: int = 6, width: int = 6, channels: Any = 1) -> Preprocess:
    return Preprocess((height, width), "crop", channels, (0.5,) * channels, (0.25,) * channels)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_soft_loss_is_the_papers(temperature: float) -> None:
    student_nk, teacher_nk = logits(5, 7, 0).requires_grad_(), logits(5, 7, 1)
    p_nk, q_nk = (np.exp(z.detach().numpy() / temperature) for z in (teacher_nk, student_nk))
    p_nk, q_nk = (e_nk / e_nk.sum(1, keepdims=True) for e_nk in (p_nk, q_nk))
    expected = temperature**2 * (p_nk * np.log(p_nk / q_nk)).sum(1).mean()
    loss = soft_loss(student_nk, teacher_nk, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()  # type: ignore[no-untyped-call]
    # Equation 2 of the paper times T²: dC/dz = T (q − p), a mean over the batch.
    assert student_nk.grad is not None
    assert student_nk.grad.numpy() == pytest.approx(temperature * (q_nk - p_nk) / 5, abs=1e-12)


def test_when_it_is_hot_logits_are_matched() -> None:
    """Equation 4: far above the logits' size the loss is half the mean square of what centred logits differ by."""
    student_nk, teacher_nk = logits(5, 7, 0), logits(5, 7, 1)
    apart_nk = (student_nk - student_nk.mean(1, keepdim=True)) - (teacher_nk - teacher_nk.mean(1, keepdim=True))
    assert soft_loss(student_nk, teacher_nk, 1e4).item() == pytest.approx(
        0.5 * apart_nk.square().mean(1).mean().item(), rel=1e-3
    )


def test_a_teacher_that_is_sure_of_the_labels_is_the_labels() -> None:
    student_nk, labels = logits(5, 7, 0), torch.tensor([0, 6, 2, 2, 5])
    sure_nk = 1e4 * nn.functional.one_hot(labels, 7).double()
    hard = nn.functional.cross_entropy(student_nk, labels)
    assert soft_loss(student_nk, sure_nk, 1.0).item() == pytest.approx(hard.item(), rel=1e-12)
    assert soft_loss(student_nk, student_nk).item() == pytest.approx(0, abs=1e-12)


def test_a_step_pulls_by_both_shares_and_shows_the_loss_against_the_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (12, 6, 6, 1), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 3, (12,), generator=generator)
    see = preprocess()
    model, twin, other = (nets.build("mlp(8)", 3, (1, 6, 6), seed=seed) for seed in (1, 1, 2))
    teacher = Teacher(other.eval(), see, (0, 1, 2))
    recipe = settle(Recipe(engine=ENGINE), optimizer="sgd", lr=0.1, schedule="constant", weight_decay=0.0, epochs=1)
    training = Training(model, Batches(pixels, labels, see, (), 12, seed=0), recipe, make_loss(recipe), teacher)
    (x_nhwc, target), *_ = training.batches.epoch(0)
    x_nchw = see.normalise(x_nhwc)
    hard = nn.functional.cross_entropy(twin(x_nchw), target)  # type: ignore[arg-type]
    whole = (1 - SHARE) * hard + SHARE * soft_loss(twin(x_nchw), other(x_nchw).detach(), TEMPERATURE)
    assert distilled(hard, twin(x_nchw), other(x_nchw)).item() == pytest.approx(whole.item(), rel=1e-6)
    slopes = torch.autograd.grad(whole, list(twin.parameters()))
    list(training.run_epoch())
    assert training.sums()[0] == pytest.approx(hard.item(), rel=1e-5)
    for after, before, slope in zip(model.parameters(), twin.parameters(), slopes, strict=True):
        assert torch.allclose(after, before - 0.1 * slope, atol=1e-6)
    assert all(parameter.grad is None for parameter in other.parameters())


def test_classes_are_matched_by_name_and_others_left_away(tmp_path: Path) -> None:
    run_ = bundled(tmp_path / "t", ("cat", "dog", "owl", "ant"), preprocess())
    x_nhwc = torch.randint(0, 256, (4, 6, 6, 1), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    whole = open_teacher(run_, ("cat", "dog", "owl", "ant"), preprocess())(x_nhwc)
    found = open_teacher(run_, ("ant", "cat", "owl"), preprocess())(x_nhwc)
    assert torch.equal(found, whole[:, [3, 0, 2]])
    assert not found.requires_grad
    assert whole.numpy() == pytest.approx(
        pellucid.load(run_).model(preprocess().normalise(x_nhwc)).detach().numpy(), abs=1e-6
    )
    with pytest.raises(UsageError, match=r"knows nothing of 'bee' and 1 more \(its classes: cat, dog, owl, ant\)"):
        open_teacher(run_, ("ant", "bee", "fly"), preprocess())


def test_pictures_come_in_the_teachers_size_and_colours(tmp_path: Path) -> None:
    own = open_teacher(bundled(tmp_path / "grey", ("a", "b"), preprocess(12, 12)), ("a", "b"), preprocess(6, 6, 3))
    # An even picture stays one at any size; red alone is 0.299 of white to the eye.
    red = torch.tensor([200, 0, 0], dtype=torch.uint8).expand(1, 6, 6, 3)
    grey = torch.full((1, 12, 12, 1), 60, dtype=torch.uint8)
    assert torch.equal(own._fitted(red), grey)
    colour = open_teacher(bundled(tmp_path / "rgb", ("a", "b"), preprocess(6, 6, 3)), ("a", "b"), preprocess(6, 6, 1))
    assert torch.equal(colour._fitted(grey[:, :6, :6]), torch.full((1, 6, 6, 3), 60, dtype=torch.uint8))
    with pytest.raises(UsageError, match="sees pictures of 6×12, which 6×6 cannot be scaled to"):
        open_teacher(bundled(tmp_path / "tall", ("a", "b"), preprocess(12, 6)), ("a", "b"), preprocess())


def test_a_run_learns_from_another(tmp_path: Path, small: Recipe) -> None:
    list(run(settle(small, epochs=3), out=tmp_path / "teacher"))
    small = settle(small, net="mlp(16)", size=16, teacher=str(tmp_path / "teacher"))
    *_, taught = run(small, out=tmp_path / "taught")
    recipe = read_recipe(tmp_path / "taught" / "recipe.json")
    assert recipe.regularisation.teacher == str(tmp_path / "teacher")
    list(run(recipe, out=tmp_path / "again"))
    bundles = [tmp_path / name / "bundle" / "model.safetensors" for name in ("taught", "again")]
    assert bundles[0].read_bytes() == bundles[1].read_bytes()
    assert isinstance(taught, Run)
    assert taught.scores["accuracy"] > 0.7


def test_what_cannot_teach_is_refused_before_any_work(tmp_path: Path, small: Recipe) -> None:
    with pytest.raises(DataError, match="no such folder"):
        next(iter(run(settle(small, teacher=str(tmp_path / "none")), out=tmp_path / "run")))
    letters = bundled(tmp_path / "letters", ("a", "b"), preprocess(32, 32))
    with pytest.raises(UsageError, match=r"--teacher .*letters: knows nothing of '0' and 9 more"):
        next(iter(run(settle(small, teacher=letters), out=tmp_path / "run")))
    with pytest.raises(UsageError, match="--teacher goes with --loss cross-entropy, not custom"):
        pellucid.train("digits", loss=nn.MultiMarginLoss(), teacher=letters, augment=(), out=tmp_path / "run")
    config = json.loads((tmp_path / "letters" / "config.json").read_text("utf-8"))
    (tmp_path / "letters" / "config.json").write_text(json.dumps({**config, "network": "custom"}), encoding="utf-8")
    with pytest.raises(UsageError, match="holds a network of one's own, which its files cannot build"):
        next(iter(run(settle(small, teacher=letters), out=tmp_path / "run")))
    assert not (tmp_path / "run").exists()

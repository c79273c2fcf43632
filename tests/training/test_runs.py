from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pellucid
from pellucid.errors import DataError, PellucidError, UsageError
from pellucid.recipe import Recipe, read_recipe, settle
from pellucid.training import Epoch, Event, Progress, Reading, Run, Started, Understood, find_rate, resume, run

EPOCH_KEYS = [
    "epoch",
    "step",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "val_auc",
    "val_accuracy_low",
    "val_accuracy_high",
    "val_balanced_accuracy",
    "lr",
    "seconds",
    "images_per_second",
]


def finish(events: Any) -> Run:
    *_, last = events
    assert isinstance(last, Run)
    return last


def bytes_of(folder: Path) -> bytes:
    return (folder / "bundle" / "model.safetensors").read_bytes()


def lines(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k not in {"seconds", "images_per_second"}} for row in rows]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Event], Path]:
    out = tmp_path_factory.mktemp("module") / "run"
    recipe = settle(
        Recipe(data="digits"), net="lenet5", epochs=4, precision="float32", layout="nchw", threads=1, batch_size=64
    )
    return list(run(recipe, out=out)), out


def assert_same(resumed: Run, whole: Run) -> None:
    """A resumed run ends as the one that was never stopped."""
    assert bytes_of(resumed.folder) == bytes_of(whole.folder)
    assert lines(resumed.folder) == lines(whole.folder)


def test_the_events_tell_the_run_in_order(done: tuple[list[Event], Path]) -> None:
    # How often reading and progress are reported is a matter of time.
    events = [event for event in done[0] if not isinstance(event, (Progress, Reading))]
    assert [type(event) for event in events] == [Understood, Started, *[Epoch] * 4, Run]


def test_the_run_folder_is_the_designs(done: tuple[list[Event], Path]) -> None:
    folder = done[1]
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {
        "recipe.json",
        "environment.json",
        "metrics.jsonl",
        "curves.png",
        "confusion.png",
        "errors.csv",
        "images.csv",
        "result.json",
        "bundle/model.safetensors",
        "bundle/config.json",
        "bundle/preprocessor_config.json",
        "bundle/README.md",
        "bundle/selftest/expected.json",
        "checkpoints/last.safetensors",
        "checkpoints/best.safetensors",
    } <= names
    assert not [name for name in names if "tmp" in name]


def test_it_learns(done: tuple[list[Event], Path]) -> None:
    result = done[0][-1]
    assert isinstance(result, Run)
    assert result.scores["accuracy"] > 0.9
    assert not result.stopped


def test_metrics_have_the_designs_keys(done: tuple[list[Event], Path]) -> None:
    rows = [json.loads(line) for line in (done[1] / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [list(row) for row in rows] == [EPOCH_KEYS] * 4
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]


def test_the_recipe_written_is_complete_and_repeats_the_run_to_the_byte(
    done: tuple[list[Event], Path], tmp_path: Path
) -> None:
    recipe = read_recipe(done[1] / "recipe.json")
    undecided = [
        field.name
        for part in (recipe.pictures, recipe.optimisation, recipe.engine)
        for field in dataclasses.fields(part)
        # Without patience a run never stops early, without an initialiser a network draws as it always does, without a
        # factor no layer is slower, and a budget is spent on epochs: those are decisions.
        if getattr(part, field.name) in (None, "auto")
        and field.name not in {"patience", "init", "lr_decay_by_depth", "budget"}
    ]
    assert undecided == []
    again = finish(run(recipe, out=tmp_path / "again"))
    assert bytes_of(again.folder) == bytes_of(done[1])
    assert lines(again.folder) == lines(done[1])


def test_errors_are_the_pictures_named_wrongly(done: tuple[list[Event], Path]) -> None:
    result = done[0][-1]
    assert isinstance(result, Run)
    rows = list(csv.DictReader((done[1] / "errors.csv").read_text("utf-8-sig").splitlines()))
    wrong = result.scores["n"] - int(np.trace(np.array(result.scores["confusion"])))
    assert len(rows) == wrong
    assert all(row["label"] != row["predicted"] for row in rows)
    confidences = [float(row["probability"]) for row in rows]
    assert confidences == sorted(confidences, reverse=True)


def test_train_and_val_share_no_picture_and_test_is_not_among_them(done: tuple[list[Event], Path]) -> None:
    rows = list(csv.DictReader((done[1] / "images.csv").read_text("utf-8").splitlines()))
    split = {name: {row["file"] for row in rows if row["split"] == name} for name in ("train", "val", "test")}
    assert split["train"]
    assert split["val"]
    assert not split["train"] & split["val"]
    assert not split["test"]


def test_the_best_weights_are_kept_not_the_last(tmp_path: Path, small: Recipe) -> None:
    # A rate that ruins the network in the end: the best epoch is not the last one.
    result = finish(run(settle(small, epochs=3, schedule="constant", lr=0.3, optimizer="momentum"), out=tmp_path / "r"))
    rows = lines(result.folder)
    best = max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert result.epoch == best["epoch"]
    assert result.scores["accuracy"] == best["val_accuracy"]


def test_an_interrupted_run_saves_and_resume_ends_as_if_it_had_not_been(tmp_path: Path, small: Recipe) -> None:
    small = settle(small, net="INPUT(1,16,16) -> CONV(8) -> POOL -> DROPOUT(0.5) -> FC(classes)", optimizer="adam")
    whole = finish(run(small, out=tmp_path / "whole"))
    events = run(small, out=tmp_path / "parted")
    stopped = None
    for event in events:
        if isinstance(event, Started):
            # The handlers stand once the loop runs; the first event after that is between two steps.
            continue
        if isinstance(event, (Progress, Epoch)):
            os.kill(os.getpid(), signal.SIGINT)
        if isinstance(event, Run):
            stopped = event
    assert stopped is not None
    assert stopped.stopped
    resumed = finish(resume(stopped.folder))
    assert not resumed.stopped
    assert_same(resumed, whole)


def test_resuming_in_the_middle_of_an_epoch(tmp_path: Path, small: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.training.session.REPORT", 0.0)
    whole = finish(run(small, out=tmp_path / "whole"))
    steps = 0
    stopped = None
    for event in run(small, out=tmp_path / "parted"):
        steps += isinstance(event, Progress)
        if steps == 5 and isinstance(event, Progress):
            os.kill(os.getpid(), signal.SIGTERM)
        stopped = event
    assert isinstance(stopped, Run)
    assert stopped.stopped
    assert lines(stopped.folder) == [] if (stopped.folder / "metrics.jsonl").exists() else True
    # Even before the first epoch is whole there is a network to be asked, and a folder that says how to go on.
    assert pellucid.load(stopped.folder).classes == tuple("0123456789")
    resumed = finish(resume(stopped.folder))
    assert_same(resumed, whole)


def test_quick_resumes_with_the_stem_that_its_training_pictures_gave_it(tmp_path: Path, small: Recipe) -> None:
    small = settle(small, net="quick(4)", sample=0.2, batch_size=32)
    whole = finish(run(small, out=tmp_path / "whole"))
    stopped = None
    for event in run(small, out=tmp_path / "parted"):
        if isinstance(event, Started):
            stem = event.model.get_parameter("stem.conv.weight").detach().clone()
        if isinstance(event, Epoch):
            os.kill(os.getpid(), signal.SIGINT)
        stopped = event
    assert isinstance(stopped, Run)
    assert stopped.stopped
    resumed = finish(resume(stopped.folder))
    assert_same(resumed, whole)
    # Whitening, held still, and in the bundle, which needs no pictures: 4 directions of 2×2 grey pixels, and opposites.
    model = pellucid.load(whole.folder).model
    assert torch.equal(model.get_parameter("stem.conv.weight"), stem)
    assert (stem[:4].flatten(1) @ stem[:4].flatten(1).T).fill_diagonal_(0).abs().max() < 1e-4
    assert pellucid.verify(whole.folder) < 1e-4


def test_a_budget_becomes_epochs_and_a_width_that_the_recipe_keeps(tmp_path: Path, small: Recipe) -> None:
    small = settle(small, net="quick", epochs=None, budget=0.3, sample=0.2, batch_size=32)
    result = finish(run(small, out=tmp_path / "run"))
    recipe = read_recipe(result.folder / "recipe.json")
    assert recipe.net.startswith("quick(")
    assert recipe.optimisation.budget is None
    assert recipe.optimisation.epochs == len(lines(result.folder))
    again = finish(run(recipe, out=tmp_path / "again"))
    assert lines(again.folder) == lines(result.folder)


def test_resuming_a_finished_run_changes_nothing(done: tuple[list[Event], Path]) -> None:
    before = {path: path.stat().st_mtime_ns for path in done[1].rglob("*") if path.is_file()}
    result = finish(resume(done[1]))
    assert not result.stopped
    assert {path: path.stat().st_mtime_ns for path in done[1].rglob("*") if path.is_file()} == before


def test_a_run_stopped_before_its_first_checkpoint_starts_again(tmp_path: Path, small: Recipe) -> None:
    events = run(small, out=tmp_path / "run")
    for event in events:
        if isinstance(event, Started):
            break
    events.close()  # type: ignore[attr-defined]
    assert not (tmp_path / "run" / "checkpoints").exists()
    result = finish(resume(tmp_path / "run"))
    assert bytes_of(result.folder) == bytes_of(finish(run(small, out=tmp_path / "whole")).folder)


def test_resume_refuses_other_pictures(done: tuple[list[Event], Path], tmp_path: Path) -> None:
    other = tmp_path / "run"
    other.mkdir()
    for name in ("recipe.json", "images.csv"):
        (other / name).write_bytes((done[1] / name).read_bytes())
    rows = (other / "images.csv").read_text("utf-8")
    (other / "images.csv").write_text(rows.replace("train-", "trian-").replace("train/", "trian/"), encoding="utf-8")
    with pytest.raises(DataError, match="its pictures are not those"):
        finish(resume(other))


def test_metrics_that_somebody_has_edited_are_refused(done: tuple[list[Event], Path], tmp_path: Path) -> None:
    other = shutil.copytree(done[1], tmp_path / "run")
    (other / "result.json").unlink()
    with (other / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 5}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl: a line has no step; take that line out"):
        finish(resume(other))


def test_resume_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no recipe\.json here"):
        finish(resume(tmp_path))


def test_a_run_never_overwrites(tmp_path: Path, small: Recipe) -> None:
    (tmp_path / "precious.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match="is there already, and a run never overwrites anything"):
        finish(run(small, out=tmp_path))


def test_refused_data_leaves_nothing_behind(tmp_path: Path, small: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        finish(run(settle(small, data=str(tmp_path / "empty"))))
    with pytest.raises(UsageError):
        finish(run(settle(small, net="INPUT(1,8,8) -> CONV(4, kernel=9, padding=valid) -> FC(10)")))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["empty"]


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path, small: Recipe) -> None:
    with pytest.raises(PellucidError, match=r"no longer a number \(epoch 1, step \d+, batch.*try --lr"):
        finish(run(settle(small, lr=1e12, optimizer="sgd", net="cifar-cnn", size=16), out=tmp_path / "run"))


def test_a_full_disk_is_a_sentence(tmp_path: Path, small: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    real = os.fsync

    def full(descriptor: int) -> None:
        if (tmp_path / "run" / "recipe.json").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PellucidError, match=r"(?i)no space left"):
        finish(run(small, out=tmp_path / "run"))
    assert not [path for path in (tmp_path / "run").rglob("*") if "tmp" in path.name]


def test_ones_own_network_and_loss(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    seen = []

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(len(labels))
        return nn.functional.multi_margin_loss(logits, labels)

    result = pellucid.train(
        "digits", net=model, loss=loss, out=tmp_path / "run", epochs=3, lr=0.5, threads=1, precision="float32",
        layout="nchw", size=8, augment=(),
    )  # fmt: skip
    assert seen
    assert result.scores["accuracy"] > 0.8
    with pytest.raises(UsageError, match=r"a network of your own; give it too"):
        pellucid.load(result)
    again = pellucid.load(result, net=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    scores = pellucid.evaluate(result, "digits", recogniser=again)
    assert scores["split"] == "test"
    with pytest.raises(UsageError, match=r"of your own; give it to pellucid\.train"):
        finish(run(read_recipe(result.folder / "recipe.json"), out=tmp_path / "again"))


def test_ones_own_network_that_does_not_fit_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nn\.Linear\(64, 10\)"):
        pellucid.train("digits", net=nn.Sequential(nn.Flatten(), nn.Linear(60, 10)), out=tmp_path / "r", size=8)


def test_sample_takes_the_same_share_of_every_class(tmp_path: Path, small: Recipe) -> None:
    result = finish(run(settle(small, sample=0.2), out=tmp_path / "run"))
    rows = list(csv.DictReader((result.folder / "images.csv").read_text("utf-8").splitlines()))
    counts = np.array([sum(row["label"] == str(digit) for row in rows) for digit in range(10)])
    assert counts.sum() == pytest.approx(0.2 * 1797 * 0.8, rel=0.05)
    assert counts.max() - counts.min() <= 3


def test_watch_sees_every_event_and_settings_reach_the_recipe(tmp_path: Path) -> None:
    seen: list[Event] = []
    result = pellucid.train(
        "digits", net="lenet5", out=tmp_path / "run", epochs=1, seed=7, precision="float32", layout="nchw", threads=1,
        watch=seen.append,
    )  # fmt: skip
    assert seen[-1] is result
    assert read_recipe(result.folder / "recipe.json").seed == 7
    with pytest.raises(UsageError, match="did you mean 'epochs'"):
        pellucid.train("digits", epoch=1)
    settings: dict[str, Any] = {"epochs": 1, "sample": 0.1, "precision": "float32", "layout": "nchw", "threads": 1}
    lecun = pellucid.train("digits", preset="lecun98", schedule="constant", out=tmp_path / "lecun", **settings)
    recipe = read_recipe(lecun.folder / "recipe.json")
    assert (recipe.net, recipe.optimisation.loss) == ("lenet5", "mse")
    with pytest.raises(UsageError, match="preset 'quik' is not known: did you mean 'quick'"):
        pellucid.train("digits", preset="quik")


@pytest.mark.parametrize("change", ["mixup", "cutmix"])
def test_mixed_pictures_are_trained_on_and_counted_by_their_shares(tmp_path: Path, small: Recipe, change: str) -> None:
    result = finish(run(settle(small, augment=[change], epochs=3), out=tmp_path / "run"))
    rows = lines(result.folder)
    assert result.scores["accuracy"] > 0.6
    # Nobody can name two digits at once: the training accuracy stays below what the mixtures allow.
    assert 0.3 < rows[-1]["accuracy"] < 0.97
    # So it is also taken of training pictures as they are, the same in each epoch, with the weights kept.
    train = pellucid.evaluate(result, "digits", split="train")
    best = next(row for row in rows if row["epoch"] == result.epoch)
    # A thousand of 1,293: their accuracy is that of all within four standard errors.
    spread = 4 * (train["accuracy"] * (1 - train["accuracy"]) / 1000) ** 0.5
    assert best["train_accuracy"] == pytest.approx(train["accuracy"], abs=spread)


def test_a_loss_of_ones_own_takes_no_mixtures(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gives every picture two labels"):
        pellucid.train("digits", loss=nn.MultiMarginLoss(), augment=("mixup",), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_patience_ends_a_run_that_no_longer_improves(tmp_path: Path, small: Recipe) -> None:
    # At this rate nothing is learnt after the first epochs.
    recipe = settle(
        small, epochs=30, patience=2, lr=1e-12, optimizer="sgd", schedule="constant", monitor="val_accuracy"
    )
    result = finish(run(recipe, out=tmp_path / "run"))
    rows = lines(result.folder)
    best = max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert len(rows) == best["epoch"] + 2 < 30
    assert not result.stopped
    assert result.epoch == best["epoch"]
    assert finish(resume(result.folder)).epoch == result.epoch


def test_plateau_lowers_the_rate_that_the_next_epoch_uses(tmp_path: Path, small: Recipe) -> None:
    from pellucid.training.monitor import lowered

    recipe = settle(small, epochs=12, lr=1e-12, optimizer="sgd", schedule="plateau", monitor="val_accuracy")
    rows = lines(finish(run(recipe, out=tmp_path / "run")).folder)
    expected = [1e-12 * lowered(rows[:i], "val_accuracy") for i in range(12)]
    assert [row["lr"] for row in rows] == pytest.approx(expected)
    assert rows[-1]["lr"] < 1e-12


def test_the_monitored_figure_decides_which_weights_are_kept(tmp_path: Path, small: Recipe) -> None:
    recipe = settle(small, epochs=4, schedule="constant", lr=0.3, optimizer="momentum", monitor="val_loss")
    result = finish(run(recipe, out=tmp_path / "run"))
    rows = lines(result.folder)
    assert result.epoch == min(rows, key=lambda row: row["val_loss"])["epoch"]


def test_the_average_is_what_is_evaluated_and_kept_and_survives_an_interruption(tmp_path: Path, small: Recipe) -> None:
    from pellucid.files import read_tensors

    small = settle(small, ema=0.9, optimizer="adam+sgd@0.6", epochs=3)
    whole = finish(run(small, out=tmp_path / "whole"))
    kept = read_tensors(whole.folder / "bundle" / "model.safetensors")
    last = read_tensors(whole.folder / "checkpoints" / "last.safetensors")
    if whole.epoch == 3:
        assert all(np.array_equal(value, last[f"average.{name}"]) for name, value in kept.items())
    assert any(not np.array_equal(value, last[f"model.{name}"]) for name, value in kept.items())
    stopped = None
    for event in run(small, out=tmp_path / "parted"):
        if isinstance(event, Epoch):
            os.kill(os.getpid(), signal.SIGINT)
        stopped = event
    assert isinstance(stopped, Run)
    resumed = finish(resume(stopped.folder))
    assert_same(resumed, whole)


@pytest.mark.parametrize(
    "settings",
    [{"loss": "focal"}, {"loss": "mse"}, {"balance": "weights"}, {"balance": "sample"}, {"batch_size": "all"}],
)
def test_each_of_these_trains(tmp_path: Path, small: Recipe, settings: dict[str, Any]) -> None:
    rows = lines(finish(run(settle(small, epochs=3, **settings), out=tmp_path / "run")).folder)
    assert rows[-1]["loss"] < rows[0]["loss"]
    if "batch_size" in settings:
        assert [row["step"] for row in rows] == [1, 2, 3]


def test_a_rate_is_found_written_down_and_repeated_without_looking(tmp_path: Path, small: Recipe) -> None:
    small = settle(small, lr="find", epochs=4)
    events = list(run(small, out=tmp_path / "run"))
    result = finish(events)
    started = next(event for event in events if isinstance(event, Started))
    assert started.found is not None
    recipe = read_recipe(result.folder / "recipe.json")
    assert recipe.optimisation.lr == started.found.suggestion
    assert max(row["lr"] for row in lines(result.folder)) <= started.found.suggestion
    assert result.scores["accuracy"] > 0.9
    assert (result.folder / "lr.png").stat().st_size > 5000
    # The sweep left no trace in the run: with the rate alone the same bytes come out.
    again = finish(run(recipe, out=tmp_path / "again"))
    assert bytes_of(again.folder) == bytes_of(result.folder)
    assert not (again.folder / "lr.png").exists()
    pins: dict[str, Any] = {"precision": "float32", "layout": "nchw", "threads": 1}
    assert find_rate("digits", net="lenet5", epochs=4, batch_size=64, **pins) == started.found


def test_first_weights_are_drawn_by_the_rule_and_told(tmp_path: Path, small: Recipe) -> None:
    started = next(
        event for event in run(settle(small, init="uniform(0.02)"), out=tmp_path / "r") if isinstance(event, Started)
    )
    weights = [p.detach() for name, p in started.model.named_parameters() if name.endswith("weight")]
    assert 0.0198 < max(weight.abs().max().item() for weight in weights) <= 0.02
    assert started.variances is not None
    told = [row.weights for row in started.variances.rows if row.weights is not None]
    assert told == pytest.approx([weight.var(correction=0).item() for weight in weights], rel=1e-5)
    with pytest.raises(UsageError, match="'xaver' is no initialiser Pellucid knows: did you mean 'xavier'"):
        finish(run(settle(small, init="xaver"), out=tmp_path / "bad"))
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("normalise", ["data", "unit"])
def test_the_numbers_a_network_is_shown(tmp_path: Path, small: Recipe, normalise: str) -> None:
    result = finish(run(settle(small, normalise=normalise, epochs=1), out=tmp_path / "run"))
    preprocess = result.recogniser.preprocess
    if normalise == "unit":
        assert (preprocess.mean, preprocess.std) == ((0.0,), (1.0,))
    else:
        assert 0 < preprocess.mean[0] < 1
        assert preprocess.std[0] < 0.5


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with batch norm, to begin with."""
    net = "INPUT(1,8,8) -> CONV(8, norm=batch) -> POOL -> CONV(16, norm=batch) -> POOL -> DROPOUT(0.2) -> FC(classes)"
    recipe = settle(
        Recipe(data="digits"), net=net, epochs=2, precision="float32", layout="nchw", threads=1, batch_size=64
    )
    return finish(run(recipe, out=tmp_path_factory.mktemp("first") / "run")).folder


def tuned(small: Recipe, first: Path, **settings: Any) -> Recipe:
    return settle(small, net="quick", weights=str(first), freeze=1, lr_decay_by_depth=0.5, **settings)


def test_a_run_goes_on_from_another_and_its_frozen_layers_stay(tmp_path: Path, small: Recipe, first: Path) -> None:
    from pellucid.files import read_tensors

    result = finish(run(tuned(small, first), out=tmp_path / "run"))
    before, after = (read_tensors(folder / "bundle" / "model.safetensors") for folder in (first, result.folder))
    still = {name for name in before if np.array_equal(before[name], after[name])}
    assert still == {name for name in before if name.startswith("conv1")}
    assert lines(result.folder)[0]["loss"] < 0.7 * lines(first)[0]["loss"]
    assert result.recogniser.preprocess == pellucid.load(first).preprocess
    recipe = read_recipe(result.folder / "recipe.json")
    assert recipe.weights is not None
    assert recipe.weights.startswith(f"{first}#sha256:")
    assert "Began with the weights of `run`" in (result.folder / "bundle" / "README.md").read_text("utf-8")
    again = finish(run(recipe, out=tmp_path / "again"))
    assert bytes_of(again.folder) == bytes_of(result.folder)
    assert lines(again.folder) == lines(result.folder)


@pytest.mark.parametrize("settings", [{"optimizer": "adam+sgd@0.4", "ema": 0.9}, {"freeze": "head"}])
def test_fine_tuning_stopped_inside_an_epoch_ends_as_if_it_had_not_been(
    tmp_path: Path, small: Recipe, first: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pellucid.training.session.REPORT", 0.0)
    recipe = settle(tuned(small, first), **settings)
    whole = finish(run(recipe, out=tmp_path / "whole"))
    steps, stopped = 0, None
    for event in run(recipe, out=tmp_path / "parted"):
        steps += isinstance(event, Progress)
        if steps == 25 and isinstance(event, Progress):
            os.kill(os.getpid(), signal.SIGTERM)
        stopped = event
    assert isinstance(stopped, Run)
    assert stopped.stopped
    resumed = finish(resume(stopped.folder))
    assert_same(resumed, whole)


def test_fine_tuning_stopped_before_its_first_checkpoint_starts_again(
    tmp_path: Path, small: Recipe, first: Path
) -> None:
    events = run(tuned(small, first), out=tmp_path / "run")
    for event in events:
        if isinstance(event, Started):
            break
    events.close()  # type: ignore[attr-defined]
    result = finish(resume(tmp_path / "run"))
    assert bytes_of(result.folder) == bytes_of(finish(run(tuned(small, first), out=tmp_path / "whole")).folder)


def test_weights_that_changed_are_refused_on_going_on_and_on_repeating(
    tmp_path: Path, small: Recipe, first: Path
) -> None:
    import shutil

    start = tmp_path / "start"
    shutil.copytree(first, start)
    events = run(tuned(small, start), out=tmp_path / "run")
    for event in events:
        if isinstance(event, Started):
            break
    events.close()  # type: ignore[attr-defined]
    path = start / "bundle" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"start: these are not the weights that the recipe was written for"):
        finish(resume(tmp_path / "run"))
    with pytest.raises(DataError, match=r"or give these anew with --weights"):
        finish(run(read_recipe(tmp_path / "run" / "recipe.json"), out=tmp_path / "again"))
    assert not (tmp_path / "again").exists()
    shutil.rmtree(start)
    with pytest.raises(DataError, match="no such file or folder"):
        finish(resume(tmp_path / "run"))


@pytest.mark.parametrize("kind", ["svm", "tree"])
def test_a_head_is_put_on_after_training_and_is_the_network_from_there_on(
    tmp_path: Path, small: Recipe, done: tuple[list[Event], Path], kind: str
) -> None:
    plain = finish(done[0])
    result = finish(run(settle(small, epochs=4, head=kind), out=tmp_path / "run"))
    # Training itself is as without a head.
    assert bytes_of(result.folder) == bytes_of(plain.folder)
    assert lines(result.folder) == lines(plain.folder)
    assert result.to_json()["head"] == kind
    assert plain.to_json()["head"] is None
    assert any(f"last layer has accuracy {plain.scores['accuracy']:.3f} on val" in note for note in result.notes)
    assert result.scores["accuracy"] > 0.75
    assert result.scores["loss"] != plain.scores["loss"]
    assert pellucid.verify(result) == 0
    assert pellucid.evaluate(result, "digits", split="val")["confusion"] == result.scores["confusion"]
    assert finish(resume(result.folder)).to_json() == result.to_json()


def test_a_head_stopped_and_gone_on_with_is_the_one_of_an_unbroken_run(tmp_path: Path, small: Recipe) -> None:
    recipe = settle(small, head="knn")
    whole = finish(run(recipe, out=tmp_path / "whole"))
    stopped = None
    for event in run(recipe, out=tmp_path / "parted"):
        if isinstance(event, Epoch):
            os.kill(os.getpid(), signal.SIGINT)
        stopped = event
    assert isinstance(stopped, Run)
    assert stopped.stopped
    # Whoever interrupts does not wait for another classifier.
    assert stopped.to_json()["head"] is None
    resumed = finish(resume(stopped.folder))
    for file in ("model.safetensors", "head.skops", "head.json", "selftest/expected.json"):
        assert (resumed.folder / "bundle" / file).read_bytes() == (whole.folder / "bundle" / file).read_bytes()


def test_a_head_alone_trains_nothing(tmp_path: Path, small: Recipe, first: Path) -> None:
    recipe = settle(Recipe(data="digits"), weights=str(first), head="svm")
    seen = list(run(recipe, out=tmp_path / "run"))
    result = seen[-1]
    assert isinstance(result, Run)
    assert not [event for event in seen if isinstance(event, (Epoch, Progress))]
    assert (result.epoch, result.stopped) == (0, False)
    assert bytes_of(result.folder) == bytes_of(first)
    assert result.scores["accuracy"] > 0.85
    assert not (result.folder / "metrics.jsonl").exists()
    assert finish(resume(result.folder)).to_json() == result.to_json()
    again = finish(run(read_recipe(result.folder / "recipe.json"), out=tmp_path / "again"))
    assert (again.folder / "bundle" / "head.skops").read_bytes() == (
        result.folder / "bundle" / "head.skops"
    ).read_bytes()


def test_from_python_weights_may_be_a_run_a_path_or_an_ones_own_network_too(tmp_path: Path, first: Path) -> None:
    settings: dict[str, Any] = {"epochs": 1, "precision": "float32", "layout": "nchw", "threads": 1}
    result = pellucid.train("digits", weights=first, out=tmp_path / "a", **settings)
    later = pellucid.train("digits", weights=result, freeze="head", preset="finetune", out=tmp_path / "b", **settings)
    assert later.scores["accuracy"] > 0.8
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    torch.save({name: torch.zeros_like(value) for name, value in model.state_dict().items()}, tmp_path / "w.pth")
    pellucid.train("digits", net=model, weights=tmp_path / "w.pth", size=8, lr=1e-12, out=tmp_path / "c", **settings)
    assert all(float(parameter.detach().abs().max()) < 1e-6 for parameter in model.parameters())
    with pytest.raises(UsageError, match="'haed' is not among its choices: did you mean 'head'"):
        pellucid.train("digits", weights=first, freeze="haed", out=tmp_path / "d")

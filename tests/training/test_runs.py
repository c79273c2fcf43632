from __future__ import annotations

import csv
import dataclasses
import json
import os
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
from pellucid.training import Epoch, Event, Progress, Reading, Run, Started, Understood, resume, run

EPOCH_KEYS = [
    "epoch",
    "step",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "val_auc",
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


def test_the_events_tell_the_run_in_order(done: tuple[list[Event], Path]) -> None:
    events = [event for event in done[0] if not isinstance(event, Progress | Reading)]
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
        # Without patience a run never stops early: that is a decision.
        if getattr(part, field.name) in (None, "auto") and field.name != "patience"
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
    assert bytes_of(resumed.folder) == bytes_of(whole.folder)
    assert lines(resumed.folder) == lines(whole.folder)


def test_resuming_in_the_middle_of_an_epoch(tmp_path: Path, small: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.training.runs.REPORT", 0.0)
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
    assert bytes_of(resumed.folder) == bytes_of(whole.folder)
    assert lines(resumed.folder) == lines(whole.folder)


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
    with pytest.raises(PellucidError, match=r"no longer a number \(epoch 1, step \d+\).*try --lr"):
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
    with pytest.raises(UsageError, match="preset 'quik' is not known: did you mean 'quick'"):
        pellucid.train("digits", preset="quik")


@pytest.mark.parametrize("change", ["mixup", "cutmix"])
def test_mixed_pictures_are_trained_on_and_counted_by_their_shares(tmp_path: Path, small: Recipe, change: str) -> None:
    result = finish(run(settle(small, augment=[change], epochs=3), out=tmp_path / "run"))
    rows = lines(result.folder)
    assert result.scores["accuracy"] > 0.6
    # Nobody can name two digits at once: the training accuracy stays below what the mixtures allow.
    assert 0.3 < rows[-1]["accuracy"] < 0.97


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
    assert bytes_of(resumed.folder) == bytes_of(whole.folder)
    assert lines(resumed.folder) == lines(whole.folder)


@pytest.mark.parametrize(
    "settings", [{"loss": "focal"}, {"loss": "mse"}, {"balance": "weights"}, {"batch_size": "all"}]
)
def test_each_of_these_trains(tmp_path: Path, small: Recipe, settings: dict[str, Any]) -> None:
    rows = lines(finish(run(settle(small, epochs=3, **settings), out=tmp_path / "run")).folder)
    assert rows[-1]["loss"] < rows[0]["loss"]
    if "batch_size" in settings:
        assert [row["step"] for row in rows] == [1, 2, 3]

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import pellucid
from pellucid.errors import DataError, UsageError
from pellucid.files import alone_in
from pellucid.recipe import Recipe, settle
from pellucid.training import Epoch, Progress, Run, Seeding, Seeds, is_set, resume, resume_seeds, run, run_seeds


def finish(events: Any) -> Seeds:
    *_, last = events
    assert isinstance(last, Seeds)
    return last


def bytes_of(folder: Path) -> bytes:
    return (folder / "bundle" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Seeds]:
    """Three seeds, and what was told meanwhile."""
    base = tmp_path_factory.mktemp("seeds")
    recipe = settle(
        Recipe(data="digits"), net="lenet5", epochs=1, precision="float32", layout="nchw", threads=1, batch_size=64,
        seed=4,
    )  # fmt: skip
    events = list(run_seeds(recipe, 3, out=base / "set"))
    return events, finish(events)


def test_each_seed_is_a_whole_run_of_its_own(done: tuple[list[Any], Seeds], small: Recipe, tmp_path: Path) -> None:
    folder = done[1].folder
    assert sorted(path.name for path in folder.iterdir()) == ["seed-4", "seed-5", "seed-6", "seeds.json"]
    assert [one.folder.name for one in done[1].runs] == ["seed-4", "seed-5", "seed-6"]
    *_, alone = run(settle(small, epochs=1, seed=5), out=tmp_path / "alone")
    assert isinstance(alone, Run)
    assert bytes_of(alone.folder) == bytes_of(folder / "seed-5")
    assert len({bytes_of(one.folder) for one in done[1].runs}) == 3


def test_it_tells_which_seed_is_in_hand(done: tuple[list[Any], Seeds]) -> None:
    told = [event for event in done[0] if isinstance(event, (Seeding, Run, Seeds))]
    assert [type(event) for event in told] == [Seeding, Run, Seeding, Run, Seeding, Run, Seeds]
    assert [(event.seed, event.number, event.count) for event in told if isinstance(event, Seeding)] == [
        (4, 1, 3), (5, 2, 3), (6, 3, 3),
    ]  # fmt: skip


def test_mean_and_deviation_are_those_of_the_runs(done: tuple[list[Any], Seeds]) -> None:
    found = done[1].to_json()
    for figure in ("accuracy", "balanced_accuracy", "auc", "loss"):
        values = [json.loads((one.folder / "result.json").read_text("utf-8"))[figure] for one in done[1].runs]
        assert found[figure]["mean"] == pytest.approx(np.mean(values))
        assert found[figure]["sd"] == pytest.approx(np.std(values, ddof=1))
        assert found[figure]["low"] <= found[figure]["mean"] <= found[figure]["high"]
    assert found["accuracy"]["high"] <= 1
    assert [row["seed"] for row in found["runs"]] == found["seeds"] == [4, 5, 6]
    assert all(row["accuracy_low"] < row["accuracy"] < row["accuracy_high"] for row in found["runs"])
    kept = json.loads((done[1].folder / "seeds.json").read_text("utf-8"))
    assert {key: kept[key] for key in found} == found
    assert not kept["stopped"]


def test_a_finished_set_is_left_as_it_is(done: tuple[list[Any], Seeds], tmp_path: Path) -> None:
    folder = shutil.copytree(done[1].folder, tmp_path / "set")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "seeds.json"}
    assert is_set(folder)
    assert not is_set(folder / "seed-4")
    events = list(resume_seeds(folder))
    assert not [event for event in events if isinstance(event, Epoch)]
    assert finish(events).to_json()["accuracy"] == done[1].to_json()["accuracy"]
    assert {path: path.read_bytes() for path in before} == before


def test_a_stopped_set_goes_on_and_ends_as_if_it_had_not_been(
    done: tuple[list[Any], Seeds], small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the second of three runs, in the middle of an epoch."""
    monkeypatch.setattr("pellucid.training.session.REPORT", 0.0)
    number, asked, last = 0, False, None
    for event in run_seeds(settle(small, epochs=1, seed=4), 3, out=tmp_path / "set"):
        number = event.number if isinstance(event, Seeding) else number
        if number == 2 and isinstance(event, Progress) and not asked:
            asked = True
            os.kill(os.getpid(), signal.SIGINT)
        last = event
    assert isinstance(last, Seeds)
    assert last.stopped
    assert [one.folder.name for one in last.runs] == ["seed-4"]
    found = last.to_json()
    assert (found["stopped"], found["accuracy"], found["seeds"]) == (True, None, [4, 5, 6])
    assert not (tmp_path / "set" / "seed-6").exists()
    # One of them may be gone on with by itself; the set then finds it done.
    *_, alone = resume(tmp_path / "set" / "seed-5")
    assert isinstance(alone, Run)
    assert not alone.stopped
    # What a kill has left of a folder that was being made is in nobody's way.
    (tmp_path / "set" / ".pellucid-0.tmp").mkdir()
    (tmp_path / "set" / ".pellucid-0.tmp" / "environment.json").write_text("{}")
    again = finish(resume_seeds(tmp_path / "set"))
    assert not again.stopped
    assert not (tmp_path / "set" / ".pellucid-0.tmp").exists()
    for one, whole in zip(again.runs, done[1].runs, strict=True):
        assert bytes_of(one.folder) == bytes_of(whole.folder)
    assert again.to_json()["accuracy"] == done[1].to_json()["accuracy"]


def test_what_the_first_run_settles_holds_for_all(
    small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is measured once and a rate is looked for once: what differs is the seed and nothing else."""
    monkeypatch.chdir(tmp_path)
    recipe = settle(small, epochs=1, threads=0, lr="find", batch_size=256)
    found = finish(run_seeds(recipe, 2))
    assert found.folder == Path("runs/digits-lenet5-1")
    first, second = (json.loads((one.folder / "recipe.json").read_text("utf-8")) for one in found.runs)
    assert first.pop("seed") + 1 == second.pop("seed") == 1
    assert first.pop("measured") != [] or os.cpu_count() == 1
    assert second.pop("measured") == []
    assert first == second


@pytest.mark.parametrize(
    ("count", "changes", "options", "sentence"),
    [
        (1, {}, {}, "--seeds 1: expected a whole number from 2 to 1000; one seed is given by --seed"),
        (3, {"seed": 2**32 - 2}, {}, "--seed 4294967296: expected"),
        (2, {}, {"model": nn.Linear(1, 1)}, "trained in place"),
        (2, {"net": "lenet5", "size": 16}, {}, "conv"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    small: Recipe, tmp_path: Path, count: int, changes: dict[str, Any], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        list(run_seeds(settle(small, **changes), count, out=tmp_path / "set", **options))
    assert not (tmp_path / "set").exists()


def test_a_folder_in_use_is_refused(small: Recipe, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is there already, and a run never overwrites anything"):
        list(run_seeds(small, 2, out=tmp_path))


def test_a_set_is_no_run_but_names_one(done: tuple[list[Any], Seeds]) -> None:
    with pytest.raises(DataError, match=r"no trained model in this folder.*such as .*seed-4\?"):
        pellucid.load(done[1].folder)


def test_a_set_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"seeds\.json"):
        list(resume_seeds(tmp_path))
    (tmp_path / "seeds.json").write_text('{"seeds": ["a"], "recipe": {}}')
    with pytest.raises(DataError, match="says not which seeds of which recipe"):
        list(resume_seeds(tmp_path))


def test_going_on_clears_what_a_killed_process_left_and_keeps_others_out(
    done: tuple[list[Any], Seeds], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(done[1].folder, tmp_path / "set"))
    (folder / ".pellucid-0.tmp").write_bytes(b"half")
    with alone_in(folder), pytest.raises(UsageError, match="another process is at work in this folder"):
        list(resume_seeds(folder))
    assert (folder / ".pellucid-0.tmp").exists()
    list(resume_seeds(folder))
    assert {path.name for path in folder.iterdir()} == {path.name for path in done[1].folder.iterdir()}

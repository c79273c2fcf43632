from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pellucid.data.batches import Batches, Shard
from pellucid.data.preprocess import Preprocess
from pellucid.errors import UsageError
from pellucid.training import restart


@pytest.fixture
def launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process that torchrun started, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    return tmp_path


def left(folder: Path, launch: object) -> None:
    folder.mkdir(parents=True)
    (folder / "environment.json").write_text(json.dumps({"launch": launch}), encoding="utf-8")


def test_only_what_torchrun_started_again_looks_for_what_it_had_begun(
    launched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = restart.launch(), restart.launch()
    assert first is not None
    assert first != second
    left(launched / "runs/a", {**first, "torchrun": "6"})
    left(launched / "runs/b", second)
    left(launched / "runs/c", first)
    left(launched / "out", first)
    (launched / "runs/d").mkdir()
    assert restart.begun(None, first) is None
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert restart.begun(None, first) == "runs/c"
    assert restart.begun(None, second) == "runs/b"
    assert restart.begun("out", first) == "out"
    assert restart.begun("out", second) is None
    assert restart.begun("nowhere", first) is None
    assert restart.begun(None, None) is None


def test_without_torchrun_a_run_has_no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert restart.launch() is None


def batches(n: int, size: int, of: int) -> Batches:
    preprocess = Preprocess(size=(4, 4), resize="crop", channels=1, mean=(0.4,), std=(1.0,))
    labels = torch.zeros(n, dtype=torch.int64)
    return Batches(torch.zeros((n, 4, 4, 1), dtype=torch.uint8), labels, preprocess, (), size, 0, shard=Shard(0, of))


def test_a_number_of_processes_that_cuts_other_batches_is_refused(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text('{"processes": 2}', encoding="utf-8")
    restart.refuse_other_batches(tmp_path, batches(69, 16, 2))
    # A remainder of five is enough for two processes, and for one; not for three.
    restart.refuse_other_batches(tmp_path, batches(69, 16, 1))
    with pytest.raises(UsageError, match=r"was begun by 2 processes, and 3 would cut .* go on with 2"):
        restart.refuse_other_batches(tmp_path, batches(69, 16, 3))
    # A run of an older version does not say; and one process began it.
    (tmp_path / "environment.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match=r"was begun by 1 process, and 3 would"):
        restart.refuse_other_batches(tmp_path, batches(69, 16, 3))


def test_a_batch_too_small_for_its_processes_is_refused() -> None:
    restart.refuse_small_batches(batches(69, 1, 1))
    restart.refuse_small_batches(batches(69, 8, 4))
    with pytest.raises(UsageError, match=r"--batch-size 7: is that of all 4 processes .* give at least 8"):
        restart.refuse_small_batches(batches(69, 7, 4))
    with pytest.raises(UsageError, match=r"--batch-size 7: "):
        restart.refuse_small_batches(batches(7, 64, 4))

"""Several processes train as one: started as users start them, by torchrun."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pellucid.data.batches import WHOLE
from pellucid.errors import PellucidError, UsageError
from pellucid.recipe import Recipe
from pellucid.training import processes, run_seeds
from pellucid.training.machine import own_cores, pick_device

WORKER = Path(__file__).parent / "several.py"

TRAIN = [
    *("-m", "pellucid", "train", "digits", "--net", "lenet5", "--epochs", "3", "--batch-size", "64"),
    *("--precision", "float32", "--layout", "nchw", "--threads", "1"),
]


@contextlib.contextmanager
def torchrun(folder: Path, *arguments: str, n: int = 2, restarts: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A torchrun of `n` processes in a folder."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", f"--max-restarts={restarts}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PELLUCID_CACHE": str(folder / "cache")}
    process = subprocess.Popen(
        [sys.executable, *launcher, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def ended(folder: Path, *arguments: str, n: int = 2) -> tuple[int, str]:
    with torchrun(folder, *arguments, n=n) as process:
        said, _ = process.communicate(timeout=300)
        return process.returncode, said


def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("several", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told_by(folder: Path, n: int) -> list[dict[str, Any]]:
    code, said = ended(folder, str(WORKER), str(folder), n=n)
    assert code == 0, said
    return [json.loads((folder / f"{rank}.json").read_text("utf-8")) for rank in range(n)]


def agree_with_one(told: list[dict[str, Any]]) -> None:
    several = worker()
    for case in several.CASES:
        alone, _ = several.losses(case, WHOLE)
        for answer in told:
            assert answer["losses"][case] == pytest.approx(alone, abs=1e-6, rel=1e-6), case
            assert answer["same"][case]
    for answer in told:
        assert answer["agreed"] == {"told": [0, 0.1]}
        assert answer["evaluated"]
        assert answer["few"] == [3, several.CLASSES]
        assert not answer["apart"]
        assert answer["aligned"]
        assert answer["refused"][:2] == ["DataError", "the pictures are gone; put them back"]
        assert answer["stopped"] == 4
        # A thread left over may end the process with SIGABRT while Python shuts down.
        assert answer["threads within"] > 0
        assert answer["threads after"] == 0
        assert answer["narrow"] == pytest.approx(several.losses("sgd", WHOLE)[0][0], abs=1e-6)
    assert [bool(answer["refused"][2]) for answer in told] == [False, *[True] * (len(told) - 1)]


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    told = told_by(tmp_path, 2)
    agree_with_one(told)
    assert {answer["parts"] for answer in told} == {4}


@pytest.mark.slow
def test_three_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    agree_with_one(told_by(tmp_path, 3))


def children(pid: int) -> dict[str, int]:
    """The processes that torchrun has started, by rank."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError, ValueError):
            status = (path.parent / "stat").read_text("utf-8").rpartition(")")[2].split()
            pairs = dict(pair.partition("=")[::2] for pair in path.read_text("utf-8").split("\0"))
            if int(status[1]) == pid and "RANK" in pairs:
                found[pairs["RANK"]] = int(path.parent.name)
    return found


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.005)


def lines(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k not in {"seconds", "images_per_second"}} for row in rows]


def same_runs(first: Path, second: Path) -> None:
    assert lines(first) == lines(second)
    assert (first / "bundle/model.safetensors").read_bytes() == (second / "bundle/model.safetensors").read_bytes()


def test_a_worker_killed_loses_nothing(tmp_path: Path, record_property: Callable[[str, Any], None]) -> None:
    code, said = ended(tmp_path, *TRAIN, "--out", "whole", "--json")
    assert code == 0, said
    # One document, and each line of the progress once.
    assert said.count('"per_class"') == 1
    assert said.count("epoch 3/3") == 1
    assert json.loads((tmp_path / "whole/environment.json").read_text("utf-8"))["processes"] == 2
    with torchrun(tmp_path, *TRAIN, restarts=1) as process:
        wait_for(tmp_path / "runs/digits-lenet5-1/checkpoints/last.safetensors", process)
        os.kill(children(process.pid)["1"], signal.SIGKILL)
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said
    assert said.count("Traceback") == 0, said
    # The other process says what has happened, and the second start goes on with the run of the first.
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["digits-lenet5-1"]
    same_runs(tmp_path / "whole", tmp_path / "runs/digits-lenet5-1")
    fault = "one of two processes killed, started again by torchrun"
    record_property("fault", {"fault": fault, "resumed": 1, "killed": True, "lost": False})


@pytest.mark.slow
def test_sigterm_stops_all_after_the_same_step_and_resume_goes_on(tmp_path: Path) -> None:
    for name in ("whole", "stopped"):
        with torchrun(tmp_path, *TRAIN, "--out", name) as process:
            if name == "stopped":
                wait_for(tmp_path / name / "metrics.jsonl", process)
                process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=200)
    assert "stopped; go on with" in said
    assert (
        not (tmp_path / "stopped/result.json").exists()
        or json.loads((tmp_path / "stopped/result.json").read_text("utf-8"))["stopped"]
    )
    code, said = ended(tmp_path, "-m", "pellucid", "train", "--resume", "stopped")
    assert code == 0, said
    same_runs(tmp_path / "whole", tmp_path / "stopped")
    code, said = ended(tmp_path, "-m", "pellucid", "train", "--resume", "stopped")
    assert code == 0, said


@pytest.mark.slow
def test_everything_else_a_run_can_do_works_or_is_refused_in_a_sentence(tmp_path: Path) -> None:
    code, said = ended(tmp_path, *TRAIN, "--out", "a", "--lr", "find", "--init", "he", "--augment", "mixup")
    assert code == 0, said
    code, said = ended(tmp_path, *TRAIN, "--out", "b", "--weights", "a", "--teacher", "a")
    assert code == 0, said
    code, said = ended(tmp_path, "-m", "pellucid", "train", "digits", "--weights", "a", "--head", "knn", "--out", "c")
    assert code == 0, said
    code, said = ended(tmp_path, *TRAIN, "--out", "a")
    assert code != 0
    assert said.count("--out a: is there already") == 1, said
    code, said = ended(tmp_path, *TRAIN, "--out", "d", "--lr", "1e9")
    assert said.count("the loss is no longer a number") == 1, said
    code, said = ended(tmp_path, *TRAIN, "--seeds", "3")
    assert said.count("leave torchrun away") >= 1, said
    code, said = ended(tmp_path, "-m", "pellucid", "train", "digits", "--budget", "5")
    assert said.count("--budget 5: is fitted by one process, and there are 2") == 1, said
    code, said = ended(tmp_path, "-m", "pellucid", "train", "digits", "--optimiser", "adam")
    assert 'Traceback (most recent call last):\n  File "/' not in said or "optimi" in said
    script = tmp_path / "script.py"
    script.write_text(
        "import os, pellucid\n"
        "run = pellucid.train('digits', net='lenet5', epochs=1, size=32)\n"
        "open('rank' + os.environ['RANK'], 'w').write(f'{run.folder} {run.scores[\"accuracy\"]}')\n",
        encoding="utf-8",
    )
    code, said = ended(tmp_path, str(script))
    assert code == 0, said
    assert (tmp_path / "rank0").read_text() == (tmp_path / "rank1").read_text() != ""


@pytest.fixture
def second_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a process that torchrun has started; nobody is there to be talked to."""
    values = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**values, "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("second_of_four")
def test_torchruns_environment_says_who_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.several()
    assert not processes.leads()
    assert (processes.rank(), processes.size()) == (1, 4)
    assert (processes.local_rank(), processes.local_size()) == (1, 2)
    monkeypatch.setattr("pellucid.training.machine.usable_cores", lambda: 7)
    assert own_cores() == 3
    with pytest.raises(UsageError, match="--seeds: a set of runs is trained by one process, and there are 4"):
        next(run_seeds(Recipe(data="digits"), 2))
    assert pick_device("cpu").type == "cpu"
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    with pytest.raises(UsageError, match="--device mps: takes one process, and there are 4"):
        pick_device("mps")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UsageError, match=r"2 processes on this machine want a GPU each, and it has 1"):
        pick_device("cuda")


def test_alone_nothing_is_asked_of_anybody() -> None:
    assert not processes.several()
    assert processes.leads()
    with processes.together():
        assert processes.agreed({"a": 1}) == {"a": 1}
        assert processes.led(lambda: 3) == 3
        assert not processes.any_of(False)
        processes.spread([])


def test_the_loss_of_a_process_is_told_from_other_errors() -> None:
    gone = RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:9")
    with pytest.raises(PellucidError, match="another process of this run ended"), processes.in_touch():
        raise gone
    with pytest.raises(RuntimeError, match="shape"), processes.in_touch():
        raise RuntimeError("shape '[3]' is invalid")

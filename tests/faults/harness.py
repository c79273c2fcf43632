"""Runs in processes of their own, to be killed; and what it means that nothing was lost."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image
from sklearn import datasets

import pellucid
from pellucid.files import read_tensors_metadata

ROOT = Path(__file__).parents[2]

#: Where the pellucid that is tested here is imported from.
SOURCE = Path(pellucid.__file__).parents[1]

#: Seconds after which a child of a few thousand pictures hangs.
PATIENCE = 120.0

#: What a run may leave differently each time it is made.
TIMES = {"seconds", "images_per_second"}

#: Files of a run folder whose bytes are the recipe's alone, wherever the folder stands.
SAME = (
    "recipe.json", "images.csv", "errors.csv", "bundle/model.safetensors", "bundle/config.json",
    "bundle/preprocessor_config.json", "bundle/README.md",
)  # fmt: skip

#: Everything that a checkpoint must hold is in one of these: dropout, changes at random that mix two pictures, moments
#: of the first order and of both, two optimisers in a row, a running average, a best epoch that need not be the last.
NET = "INPUT(1,8,8) -> CONV(4) -> POOL -> DROPOUT(0.3) -> FC(classes)"
COLOUR_NET = "INPUT(3,16,16) -> CONV(4, norm=batch) -> POOL -> DROPOUT(0.3) -> FC(classes)"
DIGITS = ("digits", "--net", NET, "--batch-size", "32", "--ema", "0.9")
MOMENTUM = (
    *DIGITS, "--sample", "0.5", "--epochs", "4", "--augment", "shift", "mixup", "--optimizer", "momentum", "--lr", "0.1"
)  # fmt: skip
SWITCHED = (
    *DIGITS, "--sample", "0.5", "--epochs", "4", "--augment", "rotate", "cutout", "--optimizer", "adam+sgd@0.6",
    "--schedule", "step@1", "--balance", "sample",
)  # fmt: skip
TINY = (*DIGITS, "--sample", "0.1", "--epochs", "2", "--augment", "shift", "mixup", "--optimizer", "momentum")


def photographs(data: Path) -> tuple[str, ...]:
    """A run on a folder of pictures, whose pack is part of what can be broken."""
    return (
        str(data), "--net", COLOUR_NET, "--batch-size", "8", "--ema", "0.9", "--epochs", "3", "--augment", "flip",
        "crop", "cutmix", "--optimizer", "adam",
    )  # fmt: skip


Whole = Callable[[Sequence[str]], Path]


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, or the negative number of the signal that ended it; and what it said."""

    code: int
    out: str
    err: str

    def told(self) -> str:
        """The one sentence that it ended with; and nothing beside it that looks like a defect."""
        assert "Traceback" not in self.out + self.err, self.err
        last = self.err.strip().splitlines()[-1:]
        return last[0] if last else ""


class Child:
    """A command line that is being worked on."""

    def __init__(self, forks: Forks, pid: int, out: Path, err: Path) -> None:
        self.forks, self.pid, self._out, self._err = forks, pid, out, err

    def signal(self, number: int) -> None:
        """Send a signal; to one that has ended already too, which the server has not buried yet."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = PATIENCE) -> Ended:
        """How it ended. It is killed, and the test with it, when it takes longer than `timeout`."""
        code = self.poll(timeout)
        if code is None:
            self.signal(9)
            self.poll(10)
            raise AssertionError(f"still running after {timeout:g} s: {self._err.read_text(errors='replace')[-2000:]}")
        return Ended(code, self._out.read_text("utf-8", "replace"), self._err.read_text("utf-8", "replace"))

    def poll(self, timeout: float = 0.0) -> int | None:
        """The exit code, or None while it is running."""
        code: int | None = self.forks.ask({"wait": {"pid": self.pid, "timeout": timeout}})["status"]
        return code


class Forks:
    """The server of `tests.faults.server`, and the children it forks."""

    def __enter__(self) -> Self:
        """Start it."""
        self._said = tempfile.TemporaryDirectory()
        path = os.pathsep.join([str(SOURCE), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout is not None
        # One thread, or a fork would copy locks that nobody in the child lets go of.
        assert json.loads(self._server.stdout.readline()) == {"threads": 1}
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Let it end."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(30)
        self._server.stdout.close()
        self._said.cleanup()

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """One question, one answer."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer

    def start(self, folder: Path, *arguments: str | Path, **fault: Any) -> Child:
        """Begin a command line in `folder`, with a cache of its own there; `fault` as `disk.Disk` and `server` know."""
        # Not beside the folder, whose disk may be full.
        name = Path(self._said.name) / secrets.token_hex(4)
        out, err = name.with_suffix(".out"), name.with_suffix(".err")
        pid = self.ask(
            {
                "start": {
                    "arguments": [str(argument) for argument in arguments],
                    "folder": str(folder),
                    "out": str(out),
                    "err": str(err),
                    "environment": {"PELLUCID_CACHE": str(folder / "cache"), "COLUMNS": "200"},
                    "fault": {key: str(value) if isinstance(value, Path) else value for key, value in fault.items()},
                }
            }
        )["pid"]
        return Child(self, pid, out, err)

    def run(self, folder: Path, *arguments: str | Path, **fault: Any) -> Ended:
        """A command line from its beginning to its end."""
        return self.start(folder, *arguments, **fault).wait()


def train(recipe: Sequence[str], out: str = "run", every: float | None = 0.0) -> list[str]:
    """The arguments that begin a run, with a checkpoint after `every` seconds."""
    pinned = ["--precision", "float32", "--layout", "nchw", "--threads", "1", "--device", "cpu"]
    return ["train", *recipe, *pinned, *often(every), "--out", out]


def resume(out: str = "run", every: float | None = 0.0) -> list[str]:
    """The arguments that go on with a run."""
    return ["train", "--resume", out, *often(every)]


def often(every: float | None) -> list[str]:
    """The flag that asks for a checkpoint after `every` seconds; without a number, for those that there always are."""
    return [] if every is None else ["--checkpoint-every", str(every)]


def recover(forks: Forks, folder: Path, begin: Sequence[str], **fault: Any) -> Ended:
    """Go on with the run in `folder`; where its folder never appeared, there is nothing to go on with: begin again."""
    out = begin[begin.index("--out") + 1]
    return forks.run(folder, *(resume(out) if (folder / out).exists() else begin), **fault)


def whole_runs(forks: Forks, place: Path) -> Whole:
    """A function that gives the folder of the unbroken run by a recipe, made at its first call."""
    made: dict[tuple[str, ...], Path] = {}

    def whole(begin: Sequence[str]) -> Path:
        key = tuple(begin)
        if key not in made:
            folder = place / str(len(made))
            folder.mkdir()
            ended = forks.run(folder, *begin)
            assert ended.code == 0, ended.err
            made[key] = folder / begin[begin.index("--out") + 1]
        return made[key]

    return whole


def some_pictures(folder: Path, photographs: Path | None, each: int = 16) -> None:
    """Make a folder of pictures in three classes, out of folders of photographs where these are given."""
    digits = datasets.load_digits()
    for number, name in enumerate(("daisy", "roses", "tulips")):
        (folder / name).mkdir(parents=True)
        if photographs is not None:
            for file in sorted((photographs / name).iterdir())[:each]:
                shutil.copyfile(file, folder / name / file.name)
            continue
        for n in np.flatnonzero(digits.target == number)[:each]:
            grey = Image.fromarray((digits.images[n] * 15.9).astype(np.uint8)).resize((40, 40))
            grey.convert("RGB").save(folder / name / f"{n}.jpg", quality=95)


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, times aside."""
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def differences(run: Path, unbroken: Path) -> list[str]:
    """What of a run is not as it would have been; and what should not be there at all."""
    found = ["metrics.jsonl"] if metrics(run) != metrics(unbroken) or not metrics(run) else []
    same = (*SAME, *(f"bundle/selftest/{file.name}" for file in sorted((unbroken / "bundle" / "selftest").iterdir())))
    found += [
        name
        for name in same
        if not (run / name).is_file() or (run / name).read_bytes() != (unbroken / name).read_bytes()
    ]
    names = {path.relative_to(run).as_posix() for path in run.rglob("*")}
    expected = {path.relative_to(unbroken).as_posix() for path in unbroken.rglob("*")}
    found += sorted(f"+{name}" for name in names - expected) + sorted(f"-{name}" for name in expected - names)
    result = json.loads((run / "result.json").read_text("utf-8")) if (run / "result.json").is_file() else {}
    other = json.loads((unbroken / "result.json").read_text("utf-8"))
    if {**result, "run": ""} != {**other, "run": ""}:
        found.append("result.json")
    # Beside the run too: it is made there under another name.
    found += [f"beside {path.name}" for path in run.parent.iterdir() if path.name.startswith(".pellucid")]
    return found


def step(run: Path, name: str = "last") -> int:
    """The step of a checkpoint; 0 where there is none, and −1 where it does not open."""
    path = run / "checkpoints" / f"{name}.safetensors"
    if not path.is_file():
        return 0
    try:
        return int(json.loads(read_tensors_metadata(path)["state"])["step"])
    except Exception:  # noqa: BLE001 - whatever is wrong with it
        return -1


def wait_for(condition: Callable[[], bool], child: Child, seconds: float = PATIENCE) -> bool:
    """Look every millisecond until it holds, or the child has ended."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise AssertionError("waited in vain")
        if not Path(f"/proc/{child.pid}").exists() or ended(child):
            return condition()
        time.sleep(0.001)
    return True


def ended(child: Child) -> bool:
    """Whether the child is dead, buried or not."""
    try:
        return Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True

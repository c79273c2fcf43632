"""A process that has imported all that training needs, and forks a child for each command line: `python -m` this file.

Starting Python and torch takes seconds, of which a test of a hundred killed runs would be made for the most part. The
server itself computes nothing and has one thread, so that a child is what a new process would be; which is killed for
real. It reads a JSON object a line and answers with one: {"start": {...}} with the child's number, {"wait": number,
"timeout": seconds} with how it ended, a negative signal or an exit code, or null where it has not.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.faults.disk import Disk

import pellucid
from pellucid import draw
from pellucid.app import cli, flags
from pellucid.draw.canvas import canvas
from pellucid.files import write_bytes, write_text


def main() -> None:
    """Answer until there is nothing more to read."""
    cli._before_torch()
    for module in pkgutil.walk_packages(pellucid.__path__, "pellucid."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    _warm()
    # What is there already stays where it is: a child that collects would otherwise copy every page of it.
    gc.collect()
    gc.freeze()
    threads = len(list(Path("/proc/self/task").iterdir()))
    print(json.dumps({"threads": threads}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer = {"pid": _fork(command["start"])} if "start" in command else {"status": _wait(**command["wait"])}
        print(json.dumps(answer), flush=True)


def _warm() -> None:
    """What a run imports or reads late; nothing is computed by torch, which might start threads."""
    for name in ("torch._dynamo", "sklearn.datasets", "scipy.stats", "PIL.JpegImagePlugin", "PIL.PngImagePlugin"):
        importlib.import_module(name)
    importlib.import_module("sklearn.datasets").load_digits()
    flags.read("train", ["digits"])
    with tempfile.TemporaryDirectory() as folder, canvas(1, 1, Path(folder) / "a.png") as figure:
        figure.subplots().set_title("a")


def _plain() -> None:
    """Pictures for people as the numbers that they would show: drawing takes twice as long as all else together."""

    def curves(history: Any, path: Path, best: int | None = None) -> None:
        write_text(path, json.dumps([list(history), best]))

    def confusion(matrix: Any, classes: Any, path: Path) -> None:
        write_text(path, json.dumps([matrix.tolist(), list(classes)]))

    def contact_sheet(images: Any, captions: Any, path: Path) -> None:
        write_bytes(path, images.tobytes() + repr(captions).encode())

    draw.curves, draw.confusion, draw.contact_sheet = curves, confusion, contact_sheet  # type: ignore[assignment]


def _wait(pid: int, timeout: float) -> int | None:
    until = time.monotonic() + timeout
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.001)


def _fork(start: dict[str, Any]) -> int:
    pid = os.fork()
    if not pid:
        code = 70
        try:
            code = _child(**start)
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:  # noqa: BLE001 - the child must not go on as a second server
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    return pid


def _child(
    arguments: list[str], folder: str, out: str, err: str, environment: dict[str, str], fault: dict[str, Any]
) -> int:
    """The command line with these arguments, or `tests.faults.own.NAME` where the first is @NAME; the exit code."""
    os.setpgid(0, 0)
    for path, number in ((os.devnull, 0), (out, 1), (err, 2)):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = os.open(path, flags, 0o666)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.update(environment)
    # As in a process that was just started, whatever stood in the way of signals here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "file_size" in fault:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(fault["file_size"]),) * 2)
    if "alarms" in fault:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, float(fault["alarms"]), float(fault["alarms"]))
    if not fault.get("drawn"):
        _plain()
    disk = Disk(fault.get("root", folder), fault)
    disk.install()
    try:
        if arguments[0].startswith("@"):
            own = importlib.import_module("tests.faults.own")
            return int(getattr(own, arguments[0][1:])(*arguments[1:]))
        return cli.main(arguments)
    finally:
        disk.finish()


if __name__ == "__main__":
    main()

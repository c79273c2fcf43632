"""The `pellucid` command: which sub-commands there are, and how each mistake ends.

Nothing heavy is imported here: `--help` must not wait for torch, and some of what torch reads from the environment must
stand there before it is imported.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from pellucid import __version__
from pellucid.errors import PellucidError, did_you_mean

#: Command -> (module of this room whose `main(options) -> exit code` runs it, what it is for).
COMMANDS = {
    "train": ("pellucid.app.train", "train a network on a folder of pictures, or on a data set by name"),
    "check": ("pellucid.app.check", "what is wrong with labelled pictures: bad files, doubles, leaks, two labels"),
    "eval": ("pellucid.app.eval", "how good a trained network is on labelled pictures"),
    "predict": ("pellucid.app.predict", "what a trained network sees in picture files"),
    "explain": ("pellucid.app.explain", "why a number in a trained network is what it is"),
    "verify": ("pellucid.app.verify", "whether a trained network still gives here what it gave when it was trained"),
}

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0 done; 1 the run failed; 2 usage; 3 the data was refused; 4 a verification did not match; 130 interrupted.
    """
    _before_torch()
    if arguments is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_interrupt)
    for stream in (sys.stdout, sys.stderr):
        # A file name that is not UTF-8, or a terminal that is not, is shown as well as it can be.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(_help())
        return 0 if arguments else 2
    if arguments[0] in {"-V", "--version"}:
        print(f"pellucid {__version__}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        return _complain(f"no command {command!r}: {did_you_mean(command, COMMANDS)} (pellucid --help)", 2)
    try:
        quiet = io.StringIO() if _follows() else None
        # The arguments first, by a module that does without torch: a mistake in them is answered at once.
        read = importlib.import_module("pellucid.app.flags").read
        # Of several processes of a run one tells that they are not understood.
        with contextlib.redirect_stdout(quiet or sys.stdout), contextlib.redirect_stderr(quiet or sys.stderr):
            options = read(command, rest)
        return int(importlib.import_module(COMMANDS[command][0]).main(options))
    except PellucidError as error:
        if getattr(error, "__notes__", None):
            # Process 0 has said it.
            return error.exit_code
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter's own flush at exit must not complain about it either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _complain(f"{error.filename or 'a file'}: {error.strerror or error}", 1)


def _on_interrupt(_number: int, frame: FrameType | None) -> None:
    """Ctrl-C, in a process that is this command's own: KeyboardInterrupt, but inside an import the end at once.

    There the exception may come while Python tidies up its own locks. It is then swallowed, and a lock stays taken on
    which the next thread that imports waits for ever. Nothing is half-written by an import.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"pellucid: interrupted\n")
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def _before_torch() -> None:
    """Settings that the OpenMP runtime reads once, when torch is imported; the user's own stand.

    Threads that spin for long while they wait at a barrier cost a machine with anything else to do twenty to forty
    times the time of a step; threads that sleep at once cost small networks a third on an idle one. Ten thousand turns
    (a fraction of a millisecond) in GNU's runtime, which torch brings on Linux, have neither fault; other runtimes are
    told to sleep.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="10000")


def _complain(message: str, code: int) -> int:
    place = f"pellucid, process {os.environ['RANK']}" if _follows() else "pellucid"
    print(f"{place}: {message}", file=sys.stderr)
    return code


def _follows() -> bool:
    """Whether this is one of several processes of a run, and not the one that prints."""
    return os.environ.get("RANK", "0") != "0" and os.environ.get("WORLD_SIZE", "1") != "1"


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items())
    return f"""usage: pellucid COMMAND ...

Train image recognisers fast on your own pictures, and see every number they compute.

{commands}

pellucid COMMAND --help tells a command's options. First steps:

  pellucid train digits --net lenet5     a small network on handwritten digits, in seconds
  pellucid train path/to/pictures        one folder of pictures a class
  pellucid predict runs/pictures-quick-1 picture.jpg"""

"""What a child of the server can do besides the command line: the command line in a world with one thing changed."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from pellucid import nets
from pellucid.app import cli
from pellucid.bundle.folder import save
from pellucid.training import leave, loop, pictures, runs
from pellucid.training.losses import make_loss

#: The interpreter's own names of what changes a folder.
_EVENTS = {"os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.link", "os.symlink", "os.truncate"}


def streamed(*arguments: str) -> int:
    """On a machine whose memory holds no pictures: they are decoded anew every epoch."""
    mock.patch.object(pictures, "fits", return_value=False).start()
    return cli.main(list(arguments))


def watched(seen: str, *arguments: str) -> int:
    """With every path that the interpreter says is changed written into `seen`, relative to this folder."""
    root = os.path.realpath(".")
    found: list[str] = []

    def watch(event: str, values: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = values
            if isinstance(path, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in _EVENTS:
            path = values[1] if event in {"os.rename", "os.link", "os.symlink"} else values[0]
        else:
            return
        path = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
        if path.startswith(root + os.sep):
            found.append(os.path.relpath(path, root))

    sys.addaudithook(watch)
    code = cli.main(list(arguments))
    Path(seen).write_text("".join(f"{path}\n" for path in sorted(set(found))), encoding="utf-8")
    return code


def nan_loss(step: str, *arguments: str) -> int:
    """With a loss that is NaN at this step, counted from 1, and a number at all others."""

    def make(*settings: Any) -> Any:
        loss, taken = make_loss(*settings), 0

        def broken(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            nonlocal taken
            # The losses of val and of looking for a fault are taken without a gradient.
            taken += torch.is_grad_enabled()
            found: torch.Tensor = loss(logits, target)
            return found * float("nan") if torch.is_grad_enabled() and taken == int(step) else found

        return broken

    mock.patch.object(runs, "make_loss", make).start()
    return cli.main(list(arguments))


def overflow(layer: str, step: str, *arguments: str) -> int:
    """With a layer whose answer is infinite for the second picture of the batch at this step."""
    real = nets.build

    def build(*settings: Any, **more: Any) -> nn.Module:
        model, taken = real(*settings, **more), 0

        def hook(module: nn.Module, _: Any, answer: torch.Tensor) -> torch.Tensor:
            nonlocal taken
            taken += module.training and torch.is_grad_enabled()
            if module.training and taken >= int(step):
                answer = answer.clone()
                answer[1] = float("inf")
            return answer

        model.get_submodule(layer).register_forward_hook(hook)
        return model

    mock.patch.object(nets, "build", build).start()
    return cli.main(list(arguments))


def mapped(*arguments: str) -> int:
    """With pictures read from their pack on the disk whenever they are wanted, as where memory has no room for them."""
    return streamed(*arguments)


def slowly(seconds: str, *arguments: str) -> int:
    """With steps that take so long."""
    real = loop.Training.take_step

    def take_step(training: loop.Training, *settings: Any) -> None:
        real(training, *settings)
        until = time.perf_counter() + float(seconds)
        while (rest := until - time.perf_counter()) > 0:
            time.sleep(rest)

    mock.patch.object(loop.Training, "take_step", take_step).start()
    return cli.main(list(arguments))


def slow_finish(*arguments: str) -> int:
    """With a bundle that takes a second to save."""

    def slow(*settings: Any, **more: Any) -> None:
        time.sleep(1)
        save(*settings, **more)

    mock.patch.object(leave, "save", slow).start()
    return cli.main(list(arguments))

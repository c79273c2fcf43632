"""What a run leaves behind for people: curves, confusion, the pictures it got wrong, the environment, the bundle."""

from __future__ import annotations

import csv
import datetime as dt
import io
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid import __version__, draw
from pellucid.bundle.folder import SELFTEST, png, save
from pellucid.bundle.recogniser import Recogniser
from pellucid.data.cores import usable_cores
from pellucid.data.load import Shown
from pellucid.data.source import Images
from pellucid.errors import DataError, PellucidError
from pellucid.files import write_bytes
from pellucid.scores import softmax
from pellucid.training.machine import processor
from pellucid.training.prepare import Task
from pellucid.training.processes import size

#: A bundle's self-test carries no picture larger than this, so that a bundle stays small.
EXAMPLE_BYTES = 1_000_000


def machine_facts() -> dict[str, Any]:
    """The machine, and the versions of what computes on it."""
    return {
        "pellucid": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": processor(),
        "cores": usable_cores(),
        "processes": size(),
    }


def environment(launch: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Where and with what a run was made: `environment.json`; `launch` is torchrun's part in it (`restart.launch`)."""
    return {
        **machine_facts(),
        "command": sys.argv,
        "begun": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        **({} if launch is None else {"launch": dict(launch)}),
    }


def leave(
    folder: Path,
    task: Task,
    recogniser: Recogniser,
    history: Sequence[Mapping[str, Any]],
    val: Shown,
    logits_nk: NDArray[np.float64],
    scores: Mapping[str, Any],
    epoch: int,
) -> tuple[str, ...]:
    """Write curves.png, confusion.png, errors.csv and bundle/; returns what a reader should know about them.

    A picture that cannot be drawn is a note, not the loss of a trained network: the bundle is written last, whatever
    happened before.
    """
    notes = []
    try:
        if history:
            draw.curves(history, folder / "curves.png", best=epoch)
        note = draw.confusion(np.array(scores["confusion"]), recogniser.classes, folder / "confusion.png")
        if note:
            notes.append(note)
    except PellucidError:
        raise
    except Exception as error:  # noqa: BLE001 - a fault of the drawing library must not cost the run
        notes.append(f"the plots could not be drawn ({error!r:.200})")
    write_bytes(folder / "errors.csv", _errors(val, softmax(logits_nk), recogniser.classes))
    optimisation = task.recipe.optimisation
    facts = {
        "data": task.source.name,
        "version": __version__,
        "weights": None if task.weights is None else _place(task.weights.origin),
        "epochs": optimisation.epochs,
        "epoch": epoch,
        "seed": task.recipe.seed,
        "train_n": len(task.train),
        "val": scores,
    }
    save(recogniser, folder / "bundle", examples=_examples(task.val), facts=facts)
    return tuple(notes)


def _place(origin: str) -> str:
    """Where weights are from, for those who were not there: of a path its last name alone."""
    return origin if origin.startswith("hf:") else Path(origin).name


def _errors(val: Shown, probability_nk: NDArray[np.float64], classes: Sequence[str]) -> bytes:
    """The val pictures that are named wrongly, the most confident mistake first; opens in a spreadsheet as it is."""
    predicted_n = probability_nk.argmax(1)
    wrong = np.flatnonzero(predicted_n != val.labels)
    wrong = wrong[np.argsort(-probability_nk[wrong, predicted_n[wrong]], kind="stable")]
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["file", "label", "predicted", "probability", "label_probability"])
    for i in wrong:
        label, predicted = int(val.labels[i]), int(predicted_n[i])
        row = [val.names[i], classes[label], classes[predicted]]
        writer.writerow([*row, f"{probability_nk[i, predicted]:.4f}", f"{probability_nk[i, label]:.4f}"])
    # With the byte-order mark, without which a spreadsheet takes Chinese names for another encoding.
    return buffer.getvalue().encode("utf-8-sig")


def _examples(val: Images) -> list[tuple[str, bytes]]:
    """A few of the val pictures as raw files, spread over the classes."""
    by_class = np.argsort(val.labels, kind="stable")
    chosen = np.unique(by_class[np.linspace(0, len(val) - 1, SELFTEST).round().astype(int)])
    if val.files is None:
        assert val.pixels is not None
        return [(f"{val.names[i]}.png", png(val.pixels[i])) for i in chosen]
    try:
        raw = [(val.names[i], val.files[i].read_bytes()) for i in chosen]
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot be read any more ({error.strerror or error}), and the bundle carries it to test "
            "itself with: put it back, and --resume finishes the run"
        ) from error
    small = [example for example in raw if len(example[1]) <= EXAMPLE_BYTES]
    return small or [min(raw, key=lambda example: len(example[1]))]

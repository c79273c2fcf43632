"""`pellucid explain`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid import bundle
from pellucid.app.explained import print_explanation, print_overview
from pellucid.app.flags import Explain
from pellucid.app.page import page
from pellucid.app.show import console
from pellucid.bundle import Recogniser
from pellucid.bundle.head import detach
from pellucid.errors import UsageError, did_you_mean
from pellucid.explain import Tape
from pellucid.explain.node import Pixels
from pellucid.explain.path import Path as Chain
from pellucid.explain.record import record
from pellucid.files import write_text
from pellucid.scores import softmax
from pellucid.training.restore import Step, last_step, own_loss

#: Chains that `--json` lists of those from the answer down to the pixels.
PATHS = 3


@dataclass(frozen=True, eq=False)
class Asked:
    """A picture, what the network makes of it, and the tape of that."""

    run: str
    file: str
    classes: tuple[str, ...]
    pixels_hwc: NDArray[np.uint8]
    tape: Tape
    label: int
    """The class whose loss was recorded: the one asked for, else the network's own answer."""
    notes: tuple[str, ...]

    @property
    def probability_k(self) -> NDArray[np.float64]:
        """The probability of each class."""
        shares: NDArray[np.float64] = softmax(self.tape.values[self.tape.output].astype(np.float64))[0]
        return shares

    @property
    def logit(self) -> str:
        """The address of the logit of the class asked for."""
        return f"{self.tape.output}[0,{self.label}]"


def main(options: Explain) -> int:
    """Record the picture's way through the network, and answer."""
    asked = ask(options)
    if options.html:
        write_text(Path(options.html), page(asked, options.address))
    if options.json:
        print(json.dumps(_document(asked, options.address), ensure_ascii=False, allow_nan=False))
        return 0
    out = console()
    if options.address:
        print_explanation(out, asked.tape.why(options.address))
    else:
        print_overview(out, asked)
    for note in asked.notes:
        out.print(f"note     {note}", soft_wrap=True)
    if options.html:
        out.print(f"page     {options.html}", soft_wrap=True)
    return 0


def ask(options: Explain) -> Asked:
    """Read the picture as `predict` does, and record its pass, its gradients, and the step it would cause.

    Raises DataError for a run or a picture that cannot be read, UsageError for a class the network does not know.
    """
    recogniser, notes = _open(options.run)
    pixels_hwc = recogniser.read(options.image)
    x_nchw = recogniser.input(pixels_hwc)
    label = _label(recogniser, options.label, x_nchw)
    if not options.label:
        notes.append(
            f"gradients are of the loss against {recogniser.classes[label]}, the network's own answer; "
            "--label names another class"
        )
    step = last_step(options.run, recogniser.model) if options.html or ".next" in options.address else Step()
    loss, said = own_loss(options.run, recogniser.classes)
    notes += said + step.notes
    tape = record(
        recogniser.model,
        x_nchw,
        label,
        loss=loss,
        optimizer=step.optimizer,
        clip=step.clip,
        pixels=_raw(recogniser, pixels_hwc),
    )
    notes += tape.notes
    return Asked(options.run, options.image, recogniser.classes, pixels_hwc, tape, label, tuple(notes))


def _open(run: str) -> tuple[Recogniser, list[str]]:
    recogniser = bundle.load(run)
    head = detach(recogniser.model)
    if head is None:
        return recogniser, []
    return recogniser, [f"the {head.kind} on top is left out: explained is the network's own last layer below it"]


def _label(recogniser: Recogniser, name: str, x_nchw: torch.Tensor) -> int:
    if name:
        if name not in recogniser.classes:
            raise UsageError(f"--label {name!r} is no class of this network: {did_you_mean(name, recogniser.classes)}")
        return recogniser.classes.index(name)
    with torch.inference_mode():
        return int(recogniser.model(x_nchw).argmax())


def _raw(recogniser: Recogniser, pixels_hwc: NDArray[np.uint8]) -> Pixels:
    preprocess = recogniser.preprocess
    return Pixels(np.ascontiguousarray(pixels_hwc.transpose(2, 0, 1)[None]), preprocess.mean, preprocess.std)


def _document(asked: Asked, address: str) -> dict[str, Any]:
    """What `--json` prints."""
    tape = asked.tape
    shown: dict[str, Any] = {
        "file": asked.file,
        "label": asked.classes[asked.label],
        "probabilities": dict(zip(asked.classes, map(float, asked.probability_k), strict=True)),
        "notes": list(asked.notes),
    }
    if address:
        return {**shown, **tape.why(address).to_json()}
    nodes = [
        {"name": node.name, "op": node.op, "shape": list(node.shape), "module": node.module, "source": node.source}
        for node in tape.nodes
    ]
    return {**shown, "nodes": nodes, "paths": [_plain(chain) for chain in tape.path(asked.logit, PATHS)]}


def _plain(chain: Chain) -> dict[str, Any]:
    return {"strength": chain.strength, "links": [asdict(link) for link in chain.links]}

"""`pellucid eval`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table

from pellucid import bundle
from pellucid.app import options
from pellucid.app.show import console, sentence


@dataclass(frozen=True)
class Options:
    """How good a trained network is on labelled pictures: on test if DATA has it, else on val."""

    run: Annotated[str, tyro.conf.Positional]
    """A run folder, or a bundle."""
    data: Annotated[str, tyro.conf.Positional]
    """A folder, a CSV file or a name, as for train."""
    split: Literal["auto", "train", "val", "test"] = "auto"
    """Which pictures; auto is test, else val, and never a training picture."""
    json: bool = False
    """Print one JSON document."""


def main(arguments: Sequence[str]) -> int:
    """Run `pellucid eval`; returns the exit code."""
    chosen = options.parse(Options, arguments, command="eval")
    scores = bundle.evaluate(chosen.run, chosen.data, split=None if chosen.split == "auto" else chosen.split)
    why = scores.pop("why")
    if chosen.json:
        console(to_stderr=True).print(f"{scores['split']}: {why}", soft_wrap=True)
        print(json.dumps(scores, ensure_ascii=False, allow_nan=False))
    else:
        _show(scores, why)
    return 0


def _show(scores: dict[str, Any], why: str) -> None:
    out = console()
    out.print(f"{scores['split']}: {why}", soft_wrap=True)
    out.print(sentence(scores, scores["split"]), soft_wrap=True)
    out.print(f"balanced accuracy {_number(scores['balanced_accuracy'])}, ROC-AUC {_number(scores['auc'])}, ", end="")
    out.print(f"loss {scores['loss']:.4f}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("class", "precision", "recall", "F1", "images"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for row in scores["per_class"]:
        measures = [_number(row[key]) for key in ("precision", "recall", "f1")]
        table.add_row(row["class"], *measures, f"{row['support']:,}")
    out.print(table)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"

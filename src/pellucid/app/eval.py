"""`pellucid eval`."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table

from pellucid import bundle
from pellucid.app.flags import Eval
from pellucid.app.show import console, sentence


def main(options: Eval) -> int:
    """Evaluate and show it."""
    scores = bundle.evaluate(options.run, options.data, split=None if options.split == "auto" else options.split)
    why = scores.pop("why")
    if options.json:
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

"""`pellucid eval`."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table

from pellucid import bundle
from pellucid.app.flags import Eval
from pellucid.app.show import balanced_sentence, console, sentence


def main(options: Eval) -> int:
    """Evaluate, or compare two runs, and show it."""
    split = None if options.split == "auto" else options.split
    if options.other is None:
        found = bundle.evaluate(options.run, options.data, split=split)
    else:
        found = bundle.compare(options.run, options.other, options.data, split=split)
    why = found.pop("why")
    if options.json:
        console(to_stderr=True).print(f"{found['split']}: {why}", soft_wrap=True)
        print(json.dumps(found, ensure_ascii=False, allow_nan=False))
        return 0
    console().print(f"{found['split']}: {why}", soft_wrap=True)
    if options.other is None:
        _show(found)
    else:
        _show_comparison(found)
    return 0


def _show(scores: dict[str, Any]) -> None:
    out = console()
    out.print(sentence(scores, scores["split"]), soft_wrap=True)
    out.print(
        f"{balanced_sentence(scores)}, ROC-AUC {_number(scores['auc'])}, loss {_number(scores['loss'], 4)}",
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("class", "precision", "recall", "95 % interval", "F1", "images"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for row in scores["per_class"]:
        between = "–" if row["recall"] is None else f"{row['recall_low']:.3f} to {row['recall_high']:.3f}"
        precision, recall, f1 = (_number(row[key]) for key in ("precision", "recall", "f1"))
        table.add_row(row["class"], precision, recall, between, f1, f"{row['support']:,}")
    out.print(table)


def _show_comparison(found: dict[str, Any]) -> None:
    """Both accuracies, the pictures on which the two differ, and what follows."""
    out = console()
    for letter in ("a", "b"):
        scores = found[letter]
        out.print(f"{letter.upper()}  {scores['run']}: {sentence(scores, found['split'])}", soft_wrap=True)
    out.print(
        f"right: both {found['both_right']:,}, only A {found['only_a_right']:,}, only B {found['only_b_right']:,}, "
        f"neither {found['both_wrong']:,}",
        soft_wrap=True,
    )
    out.print(
        f"B − A: {found['difference']:+.3f} (95 % interval {found['difference_low']:+.3f} to "
        f"{found['difference_high']:+.3f}); McNemar's exact test: p = {found['p_value']:.2g}",
        soft_wrap=True,
    )
    if found["differ"]:
        better = "B" if found["difference"] > 0 else "A"
        out.print(f"they differ: {better} is better, by more than chance (p < 0.05)", soft_wrap=True)
    else:
        out.print(
            f"no difference shown: {found['n']:,} pictures cannot tell them apart (p ≥ 0.05)",
            soft_wrap=True,
        )


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"

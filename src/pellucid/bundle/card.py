"""The model card: a bundle's README.md, with the front matter that model hubs read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pellucid.bundle.head import head_of
from pellucid.bundle.recogniser import Recogniser


def card(recogniser: Recogniser, facts: Mapping[str, Any]) -> str:
    """A model card in Markdown.

    `facts`: data, version, epochs (None where nothing but a head was fitted), epoch (of these weights), seed, train_n,
    `val`, an evaluation as `pellucid.scores.evaluation` gives it; and `weights`, those it began with, if any.
    """
    val = facts["val"]
    height, width = recogniser.preprocess.size
    channels = "grey" if recogniser.preprocess.channels == 1 else "colour"
    parameters = sum(p.numel() for p in recogniser.model.parameters())
    rows = "\n".join(
        f"| {_cell(row['class'])} | {_share(row['precision'])} | {_share(row['recall'])} | {_share(row['f1'])} "
        f"| {row['support']} |"
        for row in val["per_class"]
    )
    head = head_of(recogniser.model)
    top = "" if head is None else f", with a head of scikit-learn's in the last layer's place: `{head.kind}`"
    begun = f"- Began with the weights of `{_cell(facts['weights'])}`.\n" if facts.get("weights") else ""
    made = f"seed {facts['seed']}, Pellucid {facts['version']}"
    if facts["epochs"] is None:
        trained = (
            f"The head was fitted on {facts['train_n']:,} pictures, and the layers below it left alone;\n  {made}."
        )
        chosen = ""
    else:
        which = f"these are the weights of epoch {facts['epoch']} of {facts['epochs']}"
        trained = f"Trained on {facts['train_n']:,} pictures; {which},\n  {made}."
        chosen = " These weights were chosen on these pictures, so expect slightly less on new ones."
    # JSON strings are YAML strings: whatever a folder is called, the front matter stays well-formed.
    return f"""---
library_name: pellucid
pipeline_tag: image-classification
datasets: [{json.dumps(facts["data"], ensure_ascii=False)}]
metrics: [accuracy]
---

# {_cell(recogniser.network)} on {_cell(facts["data"])}

Tells {len(recogniser.classes)} classes apart: {", ".join(_cell(name) for name in recogniser.classes)}.

- Network: `{recogniser.network}`, {parameters:,} parameters{top}; input {width}×{height} pixels, {channels}.
{begun}- {trained}
- Validation accuracy {_share(val["accuracy"])} (95 % interval {_share(val["accuracy_low"])} to
  {_share(val["accuracy_high"])}, n = {val["n"]:,}); always naming the commonest class would give
  {_share(val["baseline"])}.{chosen}
{_balanced(val)}
| class | precision | recall | F1 | pictures |
|---|---|---|---|---|
{rows}

```python
import pellucid

print(pellucid.load("path/to/this/folder").predict(["picture.jpg"]))
```
"""


def _balanced(val: Mapping[str, Any]) -> str:
    """The line on the balanced accuracy, where the evaluation has it with its interval."""
    low, high = val.get("balanced_accuracy_low"), val.get("balanced_accuracy_high")
    if low is None or high is None:
        return ""
    return (
        "- Balanced accuracy, in which a rare class counts as much as a common one: "
        f"{_share(val['balanced_accuracy'])} (95 %\n  interval {_share(low)} to {_share(high)}).\n"
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _cell(text: str) -> str:
    """Text that stays in its table cell and its line."""
    return str(text).replace("|", "\\|").replace("\n", " ").replace("`", "'")

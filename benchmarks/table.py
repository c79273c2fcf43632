"""The README's speed table, made from results/throughput.json: `python benchmarks/table.py` writes it there."""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- speed table: python benchmarks/table.py -->", "<!-- end of speed table -->"

NAMES = {
    "pellucid": "**Pellucid**",
    "pytorch": "plain PyTorch loop",
    "keras-tensorflow": "Keras 3 on TensorFlow",
    "keras-jax": "Keras 3 on JAX",
}


def table(document: dict) -> str:  # type: ignore[type-arg]
    """The table in Markdown, with the machine and the spread beneath it."""
    results = document["results"]
    heads = " | ".join(f"`{result['net']}` on {result['data']}" for result in results)
    lines = [f"| images per second of training | {heads} |", "|---" * (len(results) + 1) + "|"]
    for name, label in NAMES.items():
        cells = []
        for result in results:
            arm, over = result["arms"].get(name), result["pellucid_over"].get(name)
            behind = f" (Pellucid {over['median']:.2f}×, {over['min']:.2f} to {over['max']:.2f})" if over else ""
            cells.append(f"{arm['median']:,.0f}{behind}" if arm else "–")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    machine = document["machine"]
    arms = results[0]["arms"]
    versions = f"torch {machine['torch']}"
    if "keras-tensorflow" in arms:
        versions += f", Keras {arms['keras-tensorflow']['keras']}"
    lines += [
        "",
        f"{machine['processor']}, {machine['cores']} cores; {versions}; batch {results[0]['batch']}; medians of "
        f"{document['rounds']} rounds, the arms in turn, the ratios within a round with their least and greatest; "
        f"{document['date']}. [benchmarks/throughput.py](benchmarks/throughput.py) makes it.",
    ]
    return "\n".join(lines)


def filled(readme: str, document: dict) -> str:  # type: ignore[type-arg]
    """The README with its table renewed."""
    before, rest = readme.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{table(document)}\n{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    document = json.loads((HERE / "results" / "throughput.json").read_text(encoding="utf-8"))
    README.write_text(filled(README.read_text(encoding="utf-8"), document), encoding="utf-8")

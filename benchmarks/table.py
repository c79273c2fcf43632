"""The README's speed tables, made from results/*.json: `python benchmarks/table.py` writes them there."""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- speed tables: python benchmarks/table.py -->", "<!-- end of speed tables -->"

NAMES = {
    "pellucid": "**Pellucid**",
    "pytorch": "plain PyTorch loop",
    "keras-tensorflow": "Keras 3 on TensorFlow",
    "keras-jax": "Keras 3 on JAX",
}


def throughput(document: dict) -> list[str]:  # type: ignore[type-arg]
    """Images per second in Markdown, with the machine and the spread beneath."""
    results = document["results"]
    heads = " | ".join(f"`{result['net']}` at {result['side']} px" for result in results)
    lines = [f"| images per second of training | {heads} |", "|---" * (len(results) + 1) + "|"]
    for name, label in NAMES.items():
        cells = []
        for result in results:
            arm, over = result["arms"].get(name), result["pellucid_over"].get(name)
            if arm is None:
                cells.append("–")
                continue
            behind = f"Pellucid {over['median']:.2f}×, {over['min']:.2f} to {over['max']:.2f}; " if over else ""
            cells.append(f"{arm['median']:,.0f} ({behind}{arm['share_of_peak']:.0%} of peak)")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    arms = results[0]["arms"]
    versions = f"torch {document['machine']['torch']}"
    if "keras-tensorflow" in arms:
        versions += f", Keras {arms['keras-tensorflow']['keras']}"
    return [
        *lines,
        "",
        f"{machine(document)}; {versions}; batch {results[0]['batch']}; medians of {document['rounds']} rounds, the "
        "arms in turn, the ratios within a round with their least and greatest; the peak is that of a large product of "
        f"matrices in the arm's own precision; {document['date']}. "
        "[benchmarks/throughput.py](benchmarks/throughput.py) makes it.",
    ]


def accuracy(document: dict) -> list[str]:  # type: ignore[type-arg]
    """Seconds to an accuracy, in Markdown, with what was measured beneath."""
    heads = ("seconds of training to an accuracy on test", "Pellucid", "with the mirror image", "the others")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for result in document["results"].values():
        own, others = result["pellucid"], []
        for name, other in result["others"].items():
            count = seeds(other["runs"])
            crossed, sooner = other["crossed"], other["pellucid_sooner"]
            if crossed is None:
                last = other["runs"][0]["epochs"][-1]
                best = f"{other['best_mean_accuracy']:.3f} at best"
                text = f"not in {last['epoch']} epochs ({last['seconds']:,.0f} s; {best}; {count})"
            else:
                seconds = crossed["seconds"]
                text = (
                    f"{seconds['median']:,.0f} ({seconds['min']:,.0f} to {seconds['max']:,.0f}; "
                    f"{crossed['epoch']} epochs, {count})"
                )
            if sooner is not None:
                text += f", Pellucid {'more than ' * (crossed is None)}{sooner['median']:.0f}× sooner"
                text += f" ({sooner['min']:.0f} to {sooner['max']:.0f})" * (len(other["runs"]) > 1)
            others.append(f"{NAMES[name]}: {text}")
        mirrored = "–" if own["mean_mirrored"] is None else f"{own['mean_mirrored']:.4f}"
        sd = "" if own["sd"] is None else f" ± {own['sd']:.4f}"
        seconds = own["seconds"]
        reached = "" if own["reached"] else "not reached: "
        lines.append(
            f"| {result['accuracy']:.1%} of {result['data']} | {reached}**{seconds['median']:.1f}** "
            f"({seconds['min']:.1f} to {seconds['max']:.1f}): {own['mean_accuracy']:.4f}{sd}, {seeds(own['runs'])}; "
            f"`{' '.join(result['flags'])}` | {mirrored} | {'; '.join(others) or '–'} |"
        )
    one = next(iter(document["results"].values()))
    return [
        *lines,
        "",
        f"{machine(one)}; from the pictures on disk to the last epoch's end, reading, looking for the engine and the "
        "look at val included; the mean of the last epoch's accuracy over the seeds, without test-time augmentation, "
        "and beside it with the answers to a picture and its mirror image averaged; "
        f"of the others the first epoch at which the mean over their seeds crosses; {one['date']}. "
        "[benchmarks/accuracy.py](benchmarks/accuracy.py) makes it.",
    ]


def seeds(runs: list) -> str:  # type: ignore[type-arg]
    """How many there are of them."""
    return f"{len(runs)} seed{'s' * (len(runs) > 1)}"


def machine(document: dict) -> str:  # type: ignore[type-arg]
    """What it was measured on."""
    return f"{document['machine']['processor']}, {document['machine']['cores']} cores"


def filled(readme: str, *documents: dict) -> str:  # type: ignore[type-arg]
    """The README with its tables renewed: images per second, and, where they were measured, seconds to an accuracy."""
    before, rest = readme.split(BEGIN, 1)
    parts = [make(document) for make, document in zip((throughput, accuracy), documents, strict=False)]
    text = "\n\n".join("\n".join(lines) for lines in parts)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}"


def results() -> list[dict]:  # type: ignore[type-arg]
    """The documents that the tables are made of."""
    return [json.loads((HERE / "results" / f"{name}.json").read_text("utf-8")) for name in ("throughput", "accuracy")]


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8"), *results()), encoding="utf-8")

"""The tables of speed, made from results/*.json: `python benchmarks/table.py` writes them into the pages.

A page says where: between `<!-- NAME.json: python benchmarks/table.py -->` and `<!-- end of NAME.json -->`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
PAGES = (HERE.parent / "README.md", HERE.parent / "docs" / "speed.md")
PLACE = re.compile(r"(<!-- (\w+)\.json: python benchmarks/table\.py -->\n).*?(<!-- end of \2\.json -->)", re.DOTALL)

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
                between = f"{span(seconds.values(), 0)}; " * (len(other["runs"]) > 1)
                text = f"{seconds['median']:,.0f} ({between}{crossed['epoch']} epochs, {count})"
            if sooner is not None:
                # Rounded down: it is a claim.
                whole = {key: int(ratio) for key, ratio in sooner.items()}
                text += f", Pellucid {'more than ' * (crossed is None)}{whole['median']}× sooner"
                text += f" ({span(whole.values(), 0)})" * (len(other["runs"]) > 1)
            others.append(f"{NAMES[name]}: {text}")
        mirrored = "–" if own["mean_mirrored"] is None else f"{own['mean_mirrored']:.4f}"
        sd = "" if own["sd"] is None else f" ± {own['sd']:.4f}"
        seconds = own["seconds"]
        between = f" ({span(seconds.values(), 1)})" * (len(own["runs"]) > 1)
        reached = "" if own["reached"] else "not reached: "
        lines.append(
            f"| {result['accuracy']:.1%} of {result['data']} | {reached}**{seconds['median']:.1f}**"
            f"{between}: {own['mean_accuracy']:.4f}{sd}, {seeds(own['runs'])}; "
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


def contributions(document: dict) -> list[str]:  # type: ignore[type-arg]
    """What each part of `quick` is worth, in Markdown."""
    settled = document["settled"]
    lines = ["| without | val accuracy | the part is worth | seconds |", "|---|---|---|---|"]
    for row in document["rows"]:
        accuracy, worth = row["val_accuracy"], row["worth"]
        points = "" if row["without"] == "whole" else f"{100 * worth['mean']:+.1f} ± {100 * worth['sd']:.1f} points"
        name = "nothing: the whole recipe" if row["without"] == "whole" else row["without"]
        took = f"{row['seconds']:.1f} ({span((run['seconds'] for run in row['runs']), 1)})"
        lines.append(f"| {name} | {accuracy['mean']:.4f} ± {accuracy['sd']:.4f} | {points} | {took} |")
    return [
        *lines,
        "",
        f"`{settled['net']}`, {settled['epochs']} epochs, {settled['precision']}, {settled['layout']}, "
        f"{settled['threads']} threads: what `--budget {document['seconds']:g}` comes to; means ± sd over "
        f"{len(document['seeds'])} seeds, the worth seed by seed; {machine(document)}; {document['date']}. "
        "[benchmarks/contributions.py](../benchmarks/contributions.py) makes it.",
    ]


def few_pictures(document: dict) -> list[str]:  # type: ignore[type-arg]
    """Accuracy with few pictures, in Markdown."""
    lines = ["| pictures | Pellucid as it is | ResNet-18 | ResNet-18 with Adam | seconds |", "|---|---|---|---|---|"]
    for data, arms in document["results"].items():
        cells = []
        for arm in ("pellucid", "resnet18", "resnet18, adam"):
            accuracy, epochs = arms[arm]["val_accuracy"], [run["epochs"] for run in arms[arm]["runs"]]
            cells.append(f"{accuracy['mean']:.3f} ± {accuracy['sd']:.3f} ({span(epochs, 0)} epochs)")
        took = span((run["seconds"] for run in arms["pellucid"]["runs"]), 1)
        lines.append(f"| {data} | {' | '.join(cells)} | {took} |")
    return [
        *lines,
        "",
        f"Accuracy on val, mean ± sd over {len(document['seeds'])} seeds; {machine(document)}; {document['date']}. "
        "[benchmarks/few_pictures.py](../benchmarks/few_pictures.py) makes it.",
    ]


def cold(document: dict) -> list[str]:  # type: ignore[type-arg]
    """Cold starts, in Markdown."""
    lines = ["| from nothing | seconds | most memory, MiB |", "|---|---|---|"]
    for name, row in document["results"].items():
        took = row["seconds"]
        lines.append(f"| `{name}` | {took['median']:.2f} ({span(took.values(), 2)}) | {row['peak_mib']:,} |")
    return [
        *lines,
        "",
        f"A new process each time; medians of {document['rounds']} rounds; {machine(document)}; {document['date']}. "
        "[benchmarks/cold.py](../benchmarks/cold.py) makes it.",
    ]


def span(values: Iterable[float], digits: int) -> str:
    """The least and the greatest of them, or the one where they are written alike."""
    written = [f"{value:,.{digits}f}" for value in sorted(values)]
    return written[0] if written[0] == written[-1] else f"{written[0]} to {written[-1]}"


def seeds(runs: list) -> str:  # type: ignore[type-arg]
    """How many there are of them."""
    return f"{len(runs)} seed{'s' * (len(runs) > 1)}"


def machine(document: dict) -> str:  # type: ignore[type-arg]
    """What it was measured on."""
    return f"{document['machine']['processor']}, {document['machine']['cores']} cores"


TABLES = {
    "throughput": throughput,
    "accuracy": accuracy,
    "contributions": contributions,
    "few_pictures": few_pictures,
    "cold": cold,
}


def filled(page: str) -> str:
    """A page with its tables renewed."""

    def renewed(place: re.Match[str]) -> str:
        document = json.loads((HERE / "results" / f"{place[2]}.json").read_text(encoding="utf-8"))
        return "\n".join([place[1].rstrip("\n"), *TABLES[place[2]](document), place[3]])

    return PLACE.sub(renewed, page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")

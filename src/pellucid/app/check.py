"""`pellucid check`."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from pellucid.app.check_page import write_page
from pellucid.app.flags import Check
from pellucid.app.sheet import write_sheet
from pellucid.app.show import LISTED, Show, console
from pellucid.data.audit import KINDS, Audit, Problem, audit, counted, together
from pellucid.data.batches import cuts
from pellucid.data.decode import EXTENSIONS, FORMATS
from pellucid.data.images import Images, Source
from pellucid.data.pack import Packed
from pellucid.data.preprocess import Preprocess
from pellucid.data.reading import read_arrays
from pellucid.data.source import Understanding, open_source, understood
from pellucid.data.split import stratified
from pellucid.data.twins import SIDE
from pellucid.errors import DataError
from pellucid.recipe import Pictures, Recipe, settle, usual_batch_size
from pellucid.training.events import Reading
from pellucid.training.pictures import Terms, least, read
from pellucid.training.prepare import geometry

T = TypeVar("T")

#: The extensions of each format.
_ENDINGS = {
    "JPEG": {".jpg", ".jpeg"},
    "TIFF": {".tif", ".tiff"},
    "PPM": {".ppm", ".pgm"},
}


@dataclass(frozen=True, eq=False)
class Checked:
    """All that is known of the data."""

    source: Source
    images: Images
    split_n: NDArray[np.int64]
    packed: Packed
    audit: Audit
    preprocess: Preprocess
    notes: tuple[str, ...]
    last_batch: dict[str, int]


def main(options: Check) -> int:
    """Check and report; 3 where training would be wrong."""
    recipe = settle(Recipe(), data=options.data, net=options.net, size=options.size, resize=options.resize)
    Terms(options.accept, options.max_bad)  # a share that is none is refused before anything is read
    with Show(to_stderr=options.json) as show:
        checked = _driven(check(options, recipe), show)
    report = to_json(checked, options)
    if options.augment is not None:
        note = write_sheet(checked.source, checked.images, checked.packed, checked.preprocess, options)
        report["notes"] += [note] if note else []
    if options.html:
        write_page(options.html, report, checked.images, checked.audit)
    if options.json:
        print(json.dumps(report, ensure_ascii=False, allow_nan=False))
    else:
        _show(report, checked.audit, options)
    if not report["refused"]:
        return 0
    console(to_stderr=True).print(f"pellucid: {report['why']}", soft_wrap=True)
    return DataError.exit_code


def check(options: Check, recipe: Recipe) -> Generator[Reading, None, Checked]:
    """Open every picture and find what is wrong. Raises DataError where there are no pictures at all."""
    source = open_source(options.data, training=False)
    about = _about(source)
    preprocess = geometry(recipe, source, about)
    images, split_n = _everything(source)
    notes = list(source.notes)
    if source.kind == "named":
        packed = _of_arrays(images)
    else:
        packed, more = yield from read(source.place, images, preprocess, cache=not options.no_cache, full=options.full)
        notes += more
        notes += _misnamed(images, packed)
        if packed.changed:
            changed = f"{len(packed.changed):,} files changed, though size and time of modification did not (first "
            notes.append(f"{changed}{packed.changed[0]}); what was kept of them is made anew.")
    found = audit(
        source,
        images,
        split_n,
        packed.facts,
        packed.shown,
        least=least(recipe, preprocess) if source.kind != "named" else 1,
    )
    batch = _last_batch(source, options)
    return Checked(source, images, split_n, packed, found, preprocess, tuple(notes), batch)


def to_json(checked: Checked, options: Check) -> dict[str, Any]:
    """What `pellucid check --json` prints."""
    source, found = checked.source, checked.audit
    why = found.refusal(options.accept, options.max_bad) or _untrainable(source)
    return {
        "data": options.data,
        "files": found.files,
        "usable": found.files - len(checked.packed.facts.bad),
        "classes": _classes(checked),
        "network": {
            "net": options.net,
            "size": list(checked.preprocess.size),
            "channels": checked.preprocess.channels,
            "resize": checked.preprocess.resize,
        },
        "last_batch": checked.last_batch,
        "counts": counted(found.problems),
        "problems": [problem.to_json() for problem in found.problems],
        "notes": list(checked.notes),
        "refused": why is not None,
        "why": why or "",
        "options": found.options(),
    }


def _driven(work: Generator[Reading, None, T], show: Show) -> T:
    while True:
        try:
            show.event(next(work))
        except StopIteration as end:
            value: T = end.value
            return value


def _about(source: Source) -> Understanding:
    try:
        return understood(source)
    except DataError:
        # Not one header can be read; the audit will say of each why.
        sides = {"min": (64, 64), "median": (64, 64), "max": (64, 64)}
        return Understanding(source.classes, {}, sides, grey=False, sampled=0, unreadable_headers=0)  # type: ignore[arg-type]


def _everything(source: Source) -> tuple[Images, NDArray[np.int64]]:
    if source.kind != "named":
        return together(source)
    parts = list(source.splits.values())
    pixels = np.concatenate([part.pixels for part in parts if part.pixels is not None])
    names = tuple(name for part in parts for name in part.names)
    images = Images(names, np.concatenate([part.labels for part in parts]), None, pixels)
    return images, np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def _of_arrays(images: Images) -> Packed:
    signatures = np.zeros((len(images), SIDE, SIDE, 3), np.uint8)

    def sink(n: int, shown: NDArray[np.uint8]) -> None:
        signatures[n : n + len(shown)] = shown

    facts = read_arrays(images, sink)
    return Packed(facts, None, signatures, np.arange(len(images)), 0)


def _misnamed(images: Images, packed: Packed) -> list[str]:
    """A note on files whose names end as another format's do."""
    wrong = []
    formats = packed.facts.columns["format"]
    for n in packed.facts.good().tolist():
        ending = "." + images.names[n].rpartition(".")[2].lower()
        what = FORMATS[int(formats[n])]
        if ending in EXTENSIONS and ending not in _ENDINGS.get(what, {f".{what.lower()}"}):
            wrong.append((images.names[n], what))
    if not wrong:
        return []
    name, what = wrong[0]
    count = "1 file is" if len(wrong) == 1 else f"{len(wrong):,} files are"
    return [f"{count} of another kind than the name says ({name} is {what}); what counts is what is in them."]


def _last_batch(source: Source, options: Check) -> dict[str, int]:
    """How an epoch of training would be cut."""
    train = source.splits.get("train")
    if train is None:
        return {}
    n = len(train) if "val" in source.splits else len(stratified(train.labels, Pictures().val, 0)[0])
    size = options.batch_size or usual_batch_size(n)
    parts = cuts(n, size)
    return {"pictures": n, "batch_size": size, "batches": len(parts), "last": parts[-1].stop - parts[-1].start}


def _classes(checked: Checked) -> dict[str, Any]:
    """Of each class: pictures by split, median width and height, and one picture of it."""
    source, images = checked.source, checked.images
    columns = checked.packed.facts.columns
    bad = checked.packed.facts.bad
    out: dict[str, Any] = {}
    empty = {label for _, label, _ in source.empty}
    for label in sorted({*source.classes, *empty}):
        k = source.classes.index(label) if label in source.classes else -1
        of_class = np.flatnonzero(images.labels == k)
        good = np.array([n for n in of_class.tolist() if n not in bad], np.int64)
        counts = {split: int((checked.split_n[of_class] == s).sum()) for s, split in enumerate(source.splits)}
        sides = [int(np.median(columns[side][good])) for side in ("width", "height")] if len(good) else None
        out[label] = {**counts, "median_size": sides, "example": images.names[good[0]] if len(good) else None}
    return out


def _untrainable(source: Source) -> str | None:
    if "train" not in source.splits:
        return f"{source.place}: no training pictures, only {' and '.join(source.splits)}: add a train split"
    if len(np.unique(source.splits["train"].labels)) == 1:
        return f"{source.place}: only one class in train: a recogniser needs at least two to tell apart"
    return None


def _show(report: dict[str, Any], found: Audit, options: Check) -> None:
    out = console()
    splits = [key for key in next(iter(report["classes"].values())) if key not in {"median_size", "example"}]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("class", *splits, "median size", "for example"):
        table.add_column(heading, justify="left" if heading in {"class", "for example"} else "right")
    for label, row in report["classes"].items():
        size = "–" if row["median_size"] is None else "×".join(map(str, row["median_size"]))
        table.add_row(label, *(f"{row[split]:,}" for split in splits), size, row["example"] or "–")
    out.print(table)
    height, width = report["network"]["size"]
    batch = report["last_batch"]
    out.print(f"{report['files']:,} pictures, {report['usable']:,} usable; shown at {width}×{height}", end="")
    if batch:
        out.print(f"; batches of {batch['batch_size']}, the last of {batch['last']}", end="")
    out.print("")
    for kind in KINDS:
        _list(kind, [problem for problem in found.problems if problem.kind == kind], show=out.print)
    for note in report["notes"]:
        out.print(f"note     {note}", soft_wrap=True)
    if not report["problems"]:
        out.print("nothing is wrong")
    if options.html:
        out.print(f"page     {options.html}", soft_wrap=True)
    if options.augment is not None:
        out.print(f"sheet    {options.sheet}", soft_wrap=True)


def _list(kind: str, problems: list[Problem], *, show: Any) -> None:
    if not problems:
        return
    show(f"\n{kind}: {len(problems):,}")
    for problem in problems[:LISTED]:
        show(f"  {problem.file}: {problem.detail}", soft_wrap=True)
    if len(problems) > LISTED:
        show(f"  and {len(problems) - LISTED:,} more (--json and --html have all)")

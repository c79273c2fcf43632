"""What is wrong with a set of labelled pictures, from what one pass found out about each.

Two pictures are the same when their files are, or their decoded pixels; nearly the same when `pellucid.data.twins` says
so. Either is a leak across splits, a conflict under two labels, and a double (or near double) where split and label are
the same. Each is told once, at the picture that comes later (val after train, test after val, then by name).
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pellucid.data import decode
from pellucid.data.images import Images, Source, Split
from pellucid.data.reading import Facts
from pellucid.data.rules import label_of
from pellucid.data.twins import LEAST, Shown, near_doubles
from pellucid.errors import did_you_mean

Fault = Literal["leak", "label-conflict", "class-mismatch"]

Kind = decode.Kind | Literal["too-small", "double", "near-double"] | Fault

#: The share of bad files that is put up with unless asked otherwise.
MAX_BAD = 0.01


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one picture, or with the folder of a class."""

    file: str
    """Relative to the data."""
    kind: Kind
    detail: str
    other: str = ""
    """The picture that it is the same as."""
    refused: bool = False
    """Whether training on it would be wrong."""

    def to_json(self) -> dict[str, str]:
        """An entry of `problems` in `pellucid check --json`."""
        return {"file": self.file, "kind": self.kind, "detail": self.detail}


@dataclass(frozen=True, eq=False)
class Audit:
    """What is wrong with all pictures of a source."""

    place: str
    files: int
    problems: tuple[Problem, ...]
    same: NDArray[np.int64]
    """(pairs, 2): places of pictures that are the same or nearly, the second after the first; enough pairs to join all
    that belong together."""

    @property
    def bad(self) -> tuple[Problem, ...]:
        """The files that cannot be used."""
        return tuple(problem for problem in self.problems if problem.kind in get_args(decode.Kind))

    def refusal(self, accept: Collection[str], max_bad: float) -> str | None:
        """Why training on this would be wrong, and the options that allow it; None where it would not be."""
        faults = [p for p in self.problems if p.refused]
        wrong = [kind for kind in get_args(Fault) if kind not in accept and any(p.kind == kind for p in faults)]
        too_bad = len(self.bad) > allowed(self.files, max_bad)
        if not wrong and not too_bad:
            return None
        parts = [_told(kind, [p for p in faults if p.kind == kind]) for kind in wrong]
        if too_bad:
            first = self.bad[0]
            parts.append(f"{len(self.bad):,} of {self.files:,} files cannot be used (first {first.file}: {first.kind})")
        return (
            f"{self.place}: {'; '.join(parts)}: mend them (pellucid check tells all), or train all the same with "
            f"{self.options(accept, max_bad)}"
        )

    def options(self, accept: Collection[str] = (), max_bad: float = MAX_BAD) -> str:
        """The options of `pellucid train` that allow what is wrong here; empty where nothing is."""
        faults = {p.kind for p in self.problems if p.refused} | set(accept)
        parts = [f"--accept {' '.join(kind for kind in get_args(Fault) if kind in faults)}"] if faults else []
        if len(self.bad) > allowed(self.files, max_bad):
            parts.append(f"--max-bad {math.ceil(1000 * len(self.bad) / self.files) / 1000:g}")
        return " ".join(parts)


def allowed(files: int, max_bad: float) -> int:
    """How many of so many files may be bad; one always may."""
    return max(1, int(max_bad * files + 1e-9))


def together(source: Source) -> tuple[Images, NDArray[np.int64]]:
    """All pictures of a source that consist of files, and the place of each one's split in `source.splits`."""
    parts = list(source.splits.values())
    images = Images(
        names=tuple(name for part in parts for name in part.names),
        labels=np.concatenate([part.labels for part in parts]),
        files=tuple(file for part in parts for file in part.files or ()),
        pixels=None,
    )
    return images, np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def audit(
    source: Source,
    images: Images,
    split_n: NDArray[np.int64],
    facts: Facts,
    shown: Shown,
    *,
    least: int,
    extra: Sequence[Problem] = (),
) -> Audit:
    """All that is wrong with a source's pictures.

    `images`, `split_n` and `facts` go together; `shown` gives the signatures of pictures by their places; `least` is
    the side below which a picture is too small for the network. `extra` are problems found elsewhere.
    """
    problems = [*extra, *class_problems(source)]
    problems += [Problem(images.names[n], bad.kind, bad.detail) for n, bad in sorted(facts.bad.items())]
    good = facts.good()
    problems += _too_small(images, facts, good, least)
    pairs, exact = _pairs(facts, shown, good)
    splits = tuple(source.splits)
    problems += _same(images, source.classes, splits, split_n, pairs, exact)
    return Audit(source.place, len(images), tuple(problems), pairs)


def _too_small(images: Images, facts: Facts, good: NDArray[np.int64], least: int) -> list[Problem]:
    width, height = facts.columns["width"], facts.columns["height"]
    small = good[np.minimum(width[good], height[good]) < least]
    return [
        Problem(
            images.names[n],
            "too-small",
            f"{width[n]}×{height[n]} pixels, and the network wants {least} a side: it is enlarged, and blurred",
        )
        for n in small.tolist()
    ]


def _pairs(facts: Facts, shown: Shown, good: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Pictures that are the same or nearly, in pairs, the earlier first; and whether each pair is exactly the same."""
    columns = facts.columns
    exact, first_of = [], good
    for digests in (columns["digest"], columns["pixels_digest"]):
        # Of each group the first stands for it; the second digest is compared among those that stand for one.
        _, first, group = np.unique(digests[first_of], return_index=True, return_inverse=True)
        leaders = first_of[first][group]
        others = leaders != first_of
        exact.append(np.stack([leaders[others], first_of[others]], axis=1))
        first_of = first_of[~others]
    large = np.minimum(columns["width"][first_of], columns["height"][first_of]) >= LEAST
    near = near_doubles(shown, first_of[large])
    pairs = np.concatenate([*exact, near])
    return pairs, np.arange(len(pairs)) < sum(map(len, exact))


def _same(
    images: Images,
    classes: tuple[str, ...],
    splits: tuple[Split, ...],
    split_n: NDArray[np.int64],
    pairs: NDArray[np.int64],
    exact: NDArray[np.bool_],
) -> list[Problem]:
    """Doubles, leaks and conflicts: of each kind one a picture, with an exact partner where there is one."""
    pairs, exact = _across(images, split_n, pairs, exact)
    found: dict[tuple[int, Kind], Problem] = {}
    order = np.lexsort((pairs[:, 0], ~exact, pairs[:, 1]))
    for (a, b), same in zip(pairs[order].tolist(), exact[order].tolist(), strict=True):
        name, other = images.names[b], images.names[a]
        what = "the same picture" if same else "nearly the same picture"
        label, label_other = classes[images.labels[b]], classes[images.labels[a]]
        split, split_other = splits[split_n[b]], splits[split_n[a]]
        told: list[tuple[Kind, str]] = []
        if label != label_other:
            told.append(("label-conflict", f"labelled {label!r}, and {what} is labelled {label_other!r} as {other}"))
        if split != split_other:
            told.append(("leak", f"is in {split}, and {what} is in {split_other} as {other}"))
        if not told:
            told.append(("double" if same else "near-double", f"{what} as {other}"))
        for kind, detail in told:
            refused = kind in {"label-conflict", "leak"}
            found.setdefault((b, kind), Problem(name, kind, detail, other, refused))
    # A picture that leaks is no double as well, though one like it stands in its own split.
    return [problem for (b, kind), problem in sorted(found.items(), key=lambda item: item[0])]


def _across(
    images: Images, split_n: NDArray[np.int64], pairs: NDArray[np.int64], exact: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The pairs, and for every group of exact doubles also those of its members that differ in split or label.

    A group is given as pairs with its first; its second and third may be what conflicts.
    """
    groups: dict[int, list[int]] = {}
    for a, b in pairs[exact].tolist():
        groups.setdefault(a, [a]).append(b)
    more = []
    for members in groups.values():
        seen: dict[tuple[int, int], int] = {}
        for n in sorted(members):
            mine = (int(split_n[n]), int(images.labels[n]))
            more += [(first, n) for kind, first in seen.items() if kind != mine and first != members[0]]
            seen.setdefault(mine, n)
    if not more:
        return pairs, exact
    return np.concatenate([pairs, np.array(more, np.int64)]), np.concatenate([exact, np.ones(len(more), np.bool_)])


def class_problems(source: Source) -> list[Problem]:
    """Classes that are empty, missing or extra in a split, and names that differ only in how they are written."""
    problems = [
        # Without it in val, less is known of the network; without it in train, it is not the network asked for.
        Problem(place, "class-mismatch", f"the class {label!r} has no picture in {split}", refused=split == "train")
        for split, label, place in source.empty
    ]
    problems += [Problem(place, "class-mismatch", detail) for place, detail in source.merged]
    of_split = {split: {source.classes[k] for k in np.unique(images.labels)} for split, images in source.splits.items()}
    known = of_split.get("train", set())
    empty = {(split, label) for split, label, _ in source.empty}
    for split, labels in of_split.items():
        if split == "train" or not known:
            continue
        for label in sorted(labels - known):
            like = sorted(name for name in known if _written(name) == _written(label))
            hint = f"; {like[0]!r} differs only {_how(label, like[0])}" if like else ""
            near = did_you_mean(label, sorted(known)[:1000])
            hint = hint or (f": {near}" if near.startswith("did") else "")
            detail = f"{split} has the class {label!r}, which train lacks{hint}"
            problems.append(Problem(_folder(source, split, label), "class-mismatch", detail, refused=True))
        problems += [
            Problem(_folder(source, split, label), "class-mismatch", f"{split} has no picture of {label!r}")
            for label in sorted(known - labels)
            if (split, label) not in empty
        ]
    problems += _alike(source, known)
    return problems


def _alike(source: Source, known: Collection[str]) -> list[Problem]:
    """Classes of train whose names differ only in how they are written."""
    first: dict[str, str] = {}
    problems = []
    for label in sorted(known):
        # Letters are classes of their own, great and small.
        if len(label) == 1:
            continue
        earlier = first.setdefault(_written(label), label)
        if earlier != label:
            detail = f"the classes {earlier!r} and {label!r} differ only {_how(label, earlier)}"
            problems.append(Problem(_folder(source, "train", label), "class-mismatch", detail, refused=True))
    return problems


def _written(label: str) -> str:
    return "".join(unicodedata.normalize("NFKC", label).casefold().split()).replace("\u200b", "")


def _how(a: str, b: str) -> str:
    if a.casefold() == b.casefold():
        return "by case"
    if "".join(a.split()) == "".join(b.split()):
        return "by space"
    return "in how it is written"


def _folder(source: Source, split: Split, label: str) -> str:
    """Where the pictures of a class stand, or would: as the names of those that are there begin."""
    images = source.splits.get(split)
    if source.kind != "folder" or images is None:
        return f"{split}/{label}"
    own = [n for n, k in enumerate(images.labels.tolist()) if source.classes[k] == label][:1]
    n = own[0] if own else 0
    first, *rest = images.names[n].split("/")
    if label_of(first) == source.classes[images.labels[n]]:
        return first if own else label
    return f"{first}/{rest[0] if own else label}"


def _told(kind: Kind, problems: Sequence[Problem]) -> str:
    """One clause about all problems of a kind."""
    what = {
        "leak": "in more than one split (leak)",
        "label-conflict": "under two labels (label-conflict)",
        "class-mismatch": "wrong with the classes (class-mismatch)",
    }[kind]
    count = "1 picture" if len(problems) == 1 else f"{len(problems):,} pictures"
    if kind == "class-mismatch":
        return f"{len(problems)} {what}, first {problems[0].detail}"
    return f"{count} {what}, first {problems[0].file} (as {problems[0].other})"


def counted(problems: Sequence[Problem]) -> dict[str, int]:
    """How many there are of each kind, in the order of the kinds."""
    counts = Counter(problem.kind for problem in problems)
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


#: Every kind of problem, in the order in which they are told.
KINDS: tuple[Kind, ...] = (
    "unreadable",
    "truncated",
    "empty",
    "not-an-image",
    "too-large",
    "too-small",
    "double",
    "near-double",
    "leak",
    "label-conflict",
    "class-mismatch",
)

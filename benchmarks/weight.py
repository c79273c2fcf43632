"""What an installation weighs: the bytes of each package that Pellucid needs, as they lie on the disk.

    python benchmarks/weight.py

The packages are those that pyproject.toml names, and what these name in turn; the files are those that each package
says it installed, without the bytecode that pip makes of them (which is given as a sum). Printed as the table
of docs/install.md.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent

#: Packages with a line of their own; the others are added up.
LINES = 8


class Package(NamedTuple):
    """A package as it is installed here."""

    name: str
    version: str
    files: int
    """Bytes."""
    bytecode: int
    """Bytes of .pyc files besides."""


def needed(requirements: list[str]) -> dict[str, Package]:
    """What is installed for these requirements, and for theirs, by name."""
    found: dict[str, Package] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        key = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if key in found or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        installed = distribution(requirement.name)
        sizes = [0, 0]
        for file in installed.files or ():
            path = Path(str(file.locate()))
            if path.is_file():
                sizes[file.suffix == ".pyc"] += path.stat().st_size
        found[key] = Package(key, installed.version, *sizes)
        waiting += [Requirement(text) for text in installed.requires or ()]
    return found


def own() -> Package:
    """Pellucid itself, which may be installed as a link to its source."""
    files = [path for path in (ROOT / "src" / "pellucid").rglob("*") if path.is_file()]
    sizes = [
        sum(path.stat().st_size for path in files if (path.suffix == ".pyc") == wanted) for wanted in (False, True)
    ]
    return Package("pellucid", "", *sizes)


def main() -> None:
    """Print the table."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        requirements = tomllib.load(file)["project"]["dependencies"]
    packages = sorted(needed(requirements).values(), key=lambda package: -package.files)
    rows = [(f"`{one.name}` {one.version}", one.files) for one in packages[:LINES]]
    rows.append((f"{len(packages) - LINES} smaller ones", sum(one.files for one in packages[LINES:])))
    rows.append(("Pellucid", own().files))
    rows.append(("together", sum(size for _, size in rows)))
    print("| package | MB |\n|---|---|")
    for name, size in rows:
        print(f"| {name} | {size / 1e6:,.1f} |")
    print(f"\nbytecode: {sum(one.bytecode for one in packages) / 1e6:,.0f} MB more")


if __name__ == "__main__":
    main()

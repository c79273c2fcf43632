"""Faults tried on runs, and what was lost: the table of docs/faults.md, made by the tests themselves.

    python benchmarks/faults.py [FILE...]

Runs tests/faults whole, the long tests included, those of memory and of several processes, and other test files that
are named; each test writes down every fault
it tried (`record_property("fault", ...)`) and whether the run that had it ended with other bytes than the one that
nothing happened to. Exits with 1 where a test failed.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
OUT = ROOT / "benchmarks" / "results" / "faults.json"
PAGE = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- fault table: python benchmarks/faults.py -->", "<!-- end of fault table -->"


class Collector:
    """What the tests write down."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(KEYS, 0))
        self.tests = 0
        self.failed: list[str] = []
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a test's outcome."""
        if report.failed:
            self.failed.append(report.nodeid)
        if report.skipped:
            self.skipped.append(report.nodeid)
        if report.when != "call":
            return
        faults: list[dict[str, Any]] = [value for name, value in report.user_properties if name == "fault"]  # type: ignore[misc]
        self.tests += bool(faults)
        for fault in faults:
            row = self.rows[fault["fault"]]
            row["tried"] += 1
            row["resumed"] += fault["resumed"]
            row["lost"] += fault["lost"]
            row["seconds"] += report.duration / len(faults)


#: Tests of faults that stand with what they are about: memory that runs out, one of several processes killed.
ELSEWHERE = tuple(ROOT / "tests" / "training" / f"test_{name}.py" for name in ("memory", "processes"))

KEYS = ("tried", "resumed", "lost", "seconds")


def table(document: dict[str, Any]) -> str:
    """The table in Markdown: faults that differ only in a detail (behind a colon, in parentheses) in one line."""
    lines: dict[str, list[int]] = {}
    for row in document["faults"]:
        name = re.split(r": | \(", row["fault"])[0]
        line = lines.setdefault(name, [0, 0, 0])
        for place, key in enumerate(("tried", "resumed", "lost")):
            line[place] += row[key]
    total = [sum(line[place] for line in lines.values()) for place in range(3)]
    rows = [
        f"| {name} | {tried:,} | {resumed:,} | {lost or 'nothing'} |" for name, (tried, resumed, lost) in lines.items()
    ]
    machine = document["machine"]
    return "\n".join(
        [
            "| fault | tried | gone on | lost |",
            "|---|---:|---:|---|",
            *rows,
            f"| **together** | {total[0]:,} | {total[1]:,} | {total[2] or 'nothing'} |",
            "",
            f"{document['tests']} tests, {document['minutes']:.0f} minutes on {machine['cores']} cores "
            f"({machine['processor']}), {document['date']}.",
        ]
    )


def filled(page: str) -> str:
    """The page with its table renewed."""
    document = json.loads(OUT.read_text(encoding="utf-8"))
    before, rest = page.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{table(document)}\n{END}{rest.split(END, 1)[1]}"


def main() -> int:
    """Run the tests and write what came of them."""
    from pellucid.training.leave import environment

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    collector, begun = Collector(), time.perf_counter()
    files = [*map(str, (ROOT / "tests" / "faults", *ELSEWHERE)), *sys.argv[1:]]
    code = pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), *files], plugins=[collector])
    here = environment()
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {key: here[key] for key in ("processor", "cores", "platform", "python", "torch")},
        "tests": collector.tests,
        "failed": collector.failed,
        "skipped": collector.skipped,
        "minutes": round((time.perf_counter() - begun) / 60, 1),
        "faults": [
            {"fault": name, **{key: round(row[key], 1) if key == "seconds" else int(row[key]) for key in KEYS}}
            for name, row in sorted(collector.rows.items())
        ],
    }
    OUT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(table(document))
    return int(code != 0)


if __name__ == "__main__":
    sys.exit(main())

"""What the README claims of speed, and docs/faults.md of faults, is what the benchmarks' results say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("program", "results", "page"),
    [("table", ("throughput", "accuracy"), "README.md"), ("faults", ("faults",), "docs/faults.md")],
)
def test_the_table_is_made_from_the_results(program: str, results: tuple[str, ...], page: str) -> None:
    spec = importlib.util.spec_from_file_location(program, ROOT / "benchmarks" / f"{program}.py")
    assert spec is not None
    assert spec.loader is not None
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    documents = [
        json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8")) for name in results
    ]
    text = (ROOT / page).read_text(encoding="utf-8")
    assert table.filled(text, *documents) == text


def test_nothing_was_lost() -> None:
    document = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text(encoding="utf-8"))
    assert not document["failed"]
    assert sum(row["tried"] for row in document["faults"]) > 500
    assert not [row for row in document["faults"] if row["lost"]]

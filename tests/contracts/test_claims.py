"""What the pages claim of speed and of faults is what the benchmarks' results say."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("program", "page", "tables"),
    [("table", "README.md", 2), ("table", "docs/speed.md", 3), ("faults", "docs/faults.md", 1)],
)
def test_the_tables_are_made_from_the_results(program: str, page: str, tables: int) -> None:
    spec = importlib.util.spec_from_file_location(program, ROOT / "benchmarks" / f"{program}.py")
    assert spec is not None
    assert spec.loader is not None
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    text = (ROOT / page).read_text(encoding="utf-8")
    place = re.compile(r"(<!-- [^\n]* python benchmarks/[^\n]* -->\n).*?(<!-- end of )", re.DOTALL)
    bare, found = place.subn(r"\1\2", text)
    assert found == tables
    assert table.filled(bare) == text


def test_nothing_was_lost() -> None:
    document = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text(encoding="utf-8"))
    assert not document["failed"]
    assert sum(row["tried"] for row in document["faults"]) > 500
    assert not [row for row in document["faults"] if row["lost"]]

"""Makes `tests.fuzz.guard` importable, and tells after a long run how many inputs each reader was given."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from tests.fuzz.guard import EXAMPLES, TALLY

    if EXAMPLES not in os.environ:
        return
    for reader, tally in sorted(TALLY.items()):
        terminalreporter.write_line(
            f"{reader:24} {tally.inputs:8,} inputs, {tally.accepted:7,} accepted, slowest {tally.slowest:.2f} s"
        )

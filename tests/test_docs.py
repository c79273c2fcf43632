"""Every code block of the README and of docs/ is run: what a reader copies works.

`python` blocks of one page run in order and share their names; `sh` blocks run in the same folder. A line of shell that
makes an environment or fetches (make, pip, git) is not repeated here: its target or package must exist instead. Blocks
marked `text` are output.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED_DATA = {"mnist", "fashion-mnist", "cifar10", "flower-photos-small"}


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(kind.strip(), code) for kind, code in BLOCK.findall(page.read_text(encoding="utf-8"))]


def needs_data(page: Path) -> bool:
    return any(
        re.search(rf"\b{name}\b", code)
        for kind, code in blocks(page)
        if kind in {"python", "sh"}
        for name in NAMED_DATA
    )


def check_fetching(line: str) -> bool:
    """Whether this line is one that is not repeated here; what it names must exist."""
    words = line.split()
    if not words or words[0] not in {"make", "git", "pip", "python3"}:
        return False
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE), line
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_on_this_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if needs_data(page) and "PELLUCID_DATA" not in os.environ:
        pytest.skip("this page uses real data: point PELLUCID_DATA at it (README, Data)")
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    # The commands of this environment first, however the tests were started.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    if "PELLUCID_DATA" in os.environ and "flower-photos-small" in page.read_text("utf-8"):
        shutil.copytree(Path(os.environ["PELLUCID_DATA"]) / "flower-photos-small", work / "flower-photos-small")
    names: dict[str, object] = {"__name__": "__main__"}
    parts = blocks(page)
    for i, (kind, code) in enumerate(parts):
        match kind:
            case "python":
                said = io.StringIO()
                with contextlib.redirect_stdout(said):
                    exec(compile(code, str(page), "exec"), names)
                # A `text` block behind a block that prints is what it prints, wherever its lines are broken.
                if said.getvalue().strip() and i + 1 < len(parts) and parts[i + 1][0] == "text":
                    assert said.getvalue().split() == parts[i + 1][1].split()
            case "sh":
                lines = [line for line in code.splitlines() if not check_fetching(line)]
                done = subprocess.run(["bash", "-euc", "\n".join(lines)], capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
            case "text" | "json" | "csv":
                pass
            case _:
                pytest.fail(f"{page}: a block of kind {kind!r}: mark it python, sh or text")


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_on_this_page_lead_somewhere(page: Path) -> None:
    broken = [link for link in links(page) if "://" not in link and not (page.parent / link).exists()]
    assert not broken

"""Imports point down, and stand at the top of the module (DESIGN: the house)."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pellucid

SOURCE = Path(pellucid.__file__).parent

#: Each room, and the rooms it may import. `errors` is the doormat every room but the textbook stands on.
BASE = {"errors", "recipe", "files", "scores"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "recipe": {"errors", "files"},
    "files": {"errors"},
    "scores": {"errors"},
    "textbook": set(),
    "draw": BASE,
    "data": BASE,
    "nets": BASE,
    "explain": BASE | {"textbook"},
    "bundle": BASE | {"data", "nets"},
    "training": BASE | {"draw", "data", "nets", "bundle"},
    "lab": BASE | {"draw", "data", "nets", "bundle", "training"},
    "app": BASE | {"textbook", "draw", "data", "nets", "explain", "bundle", "training", "lab"},
}

#: Heavy libraries, and the rooms that may import them (late imports included).
HEAVY: dict[str, set[str]] = {
    "torch": {"data", "nets", "explain", "bundle", "training", "lab", "app"},
    "matplotlib": {"draw"},
}

#: The two places where rooms of our own may be imported late.
LATE = {"__init__.py", "app/cli.py"}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative import"
        # `from pellucid import nets` names a room in the alias, not in the module.
        if node.module == "pellucid":
            return [f"pellucid.{alias.name}" for alias in node.names if alias.name != "__version__"]
        return [node.module or ""]
    return []


def test_every_room_is_known() -> None:
    assert {room(path) for path in modules()} - {"__init__", "__main__"} <= set(ALLOWED)


def test_imports_point_down() -> None:
    wrong = []
    for path in modules():
        here = room(path)
        if here in {"__init__", "__main__"}:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in imported(node):
                if name.startswith("pellucid."):
                    there = name.split(".")[1]
                    if there != here and there not in ALLOWED[here]:
                        wrong.append(f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)} imports {name}")
    assert not wrong, wrong


def test_own_rooms_are_imported_at_the_top() -> None:
    hidden = []
    for path in modules():
        if path.relative_to(SOURCE).as_posix() in LATE:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                hidden += [
                    f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}"
                    for node in ast.walk(function)
                    if any(name.split(".")[0] == "pellucid" for name in imported(node))
                ]
    assert not hidden, hidden


def test_heavy_libraries_stay_in_their_rooms() -> None:
    wrong = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in imported(node):
                rooms = HEAVY.get(name.split(".")[0])
                if rooms is not None and room(path) not in rooms:
                    wrong.append(f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)} imports {name}")
    assert not wrong, wrong


def test_the_walls_stand() -> None:
    """textbook/engine and explain/torch: the evidence rests on these."""
    for path in modules():
        names = {n.split(".")[0] for node in ast.walk(ast.parse(path.read_text("utf-8"))) for n in imported(node)}
        if room(path) == "textbook":
            assert names <= {*sys.stdlib_module_names, "numpy", "scipy", "pellucid"}, (path, names)
        if room(path) == "explain" and path.name != "record.py":
            assert "torch" not in names, path


def test_no_pickle_is_opened_in_the_open() -> None:
    """Only the reader of the CIFAR batches may touch pickle, and that one is restricted."""
    for path in modules():
        names = {n.split(".")[0] for node in ast.walk(ast.parse(path.read_text("utf-8"))) for n in imported(node)}
        if "pickle" in names:
            assert path.relative_to(SOURCE).as_posix() == "data/cifar.py", path

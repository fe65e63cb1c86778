"""What the package's files import from each other; lazy imports and those for types count too."""

from __future__ import annotations

import ast
from pathlib import Path

import grimp

ROOMS = ("training", "export", "runtime", "benchmarks")
FACES = ("runtime/__init__.py", "training/commands.py")
"""Files that offer what others define, on purpose."""


def import_graph() -> dict[str, set[str]]:
    """By module, the modules of the package that it imports."""
    graph = grimp.build_graph("sonomime")
    return {name: graph.find_modules_directly_imported_by(name) - {name} for name in graph.modules}


def second_hand(root: Path) -> list[str]:
    """Imports of a name from a file that imported it itself: `file: name of file`."""
    files = [root / "cli.py", *(file for room in ROOMS for file in (root / room).rglob("*.py"))]
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    borrowed: dict[Path, set[str]] = {root / face: set() for face in FACES}
    for file, tree in trees.items():
        taken = [node.names for node in tree.body if isinstance(node, ast.ImportFrom)]
        borrowed.setdefault(file, {each.asname or each.name for names in taken for each in names})
    found = []
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                home = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                home = home / "__init__.py" if home.is_dir() else home.with_suffix(".py")
                names = {each.name for each in node.names} & borrowed.get(home, set())
                found += [f"{file}: {name} of {home}" for name in names]
    return found

"""Which file of the package imports which, read from the source: lazy imports count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

FACES = ("runtime", "training.commands")
"""Modules that offer what others define, on purpose."""
ROOMS = ("training", "export", "runtime", "benchmarks")


def import_graph(root: Path) -> dict[str, set[str]]:
    """Modules of the package by their dotted name below `root`, and those that each imports."""
    files = [root / "cli.py", *(f for room in ROOMS for f in (root / room).rglob("*.py"))]
    modules = {_dotted(file.relative_to(root)): file for file in files}
    return {
        name: {target for target in _imported(name, file, modules) if target != name}
        for name, file in modules.items()
    }


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of two or more nodes, each of which leads to every other (Tarjan)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            place = stack.index(node)
            group = stack[place:]
            del stack[place:]
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in order:
            visit(node)
    return found


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _imported(name: str, file: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    parts = name.split(".")
    package = parts if file.name == "__init__.py" else parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            target = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                whole = f"{target}.{alias.name}" if target else alias.name
                if whole in modules:
                    yield whole
                elif target in modules:
                    yield target


def second_hand(root: Path) -> list[str]:
    """Imports of a name from a file that imported it itself: `file: name of module`."""
    graph = import_graph(root)
    files = {name: root.joinpath(*name.split(".")) for name in graph}
    trees = {
        name: ast.parse(
            (path.with_suffix(".py") if not path.is_dir() else path / "__init__.py").read_text()
        )
        for name, path in files.items()
    }
    borrowed = {name: _names_imported(tree) - _names_defined(tree) for name, tree in trees.items()}
    found = []
    for name, tree in trees.items():
        package = name.split(".") if files[name].is_dir() else name.split(".")[:-1]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = package[: len(package) - node.level + 1]
                target = ".".join([*base, *(node.module.split(".") if node.module else [])])
                for alias in node.names:
                    if target in FACES or f"{target}.{alias.name}" in graph:
                        continue
                    if alias.name in borrowed.get(target, ()):
                        found.append(f"{name}: {alias.name} of {target}")
    return found


def _names_imported(tree: ast.Module) -> set[str]:
    nodes = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in nodes for alias in node.names}


def _names_defined(tree: ast.Module) -> set[str]:
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
    }

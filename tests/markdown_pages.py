"""What Markdown pages say that can be checked: links, anchors, code blocks, command lines."""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import importlib
import importlib.util
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)\s*(\S*)")
_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*$")
_SPAN = re.compile(r"(`+)(.+?)\1", re.S)
_LINK = re.compile(r"\]\(\s*([^()\s]+(?:\([^()\s]*\))?)\s*\)")
_HTML = re.compile(r"<(?:img|a|source|video)\b[^>]*?(?:src|href)=\"([^\"]+)\"")
_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*[a-z])\b")


class Block(NamedTuple):
    """A block of code: language ("" where none is said), number of its first line, text."""

    language: str
    line: int
    text: str


class Page(NamedTuple):
    """A page without its blocks of code, whose lines are empty in `prose`, and those blocks."""

    prose: str
    blocks: list[Block]


def read_page(text: str) -> Page:
    """Split a page. An indented block begins after an empty line and outside of a list."""
    prose: list[str] = []
    blocks: list[Block] = []
    lines, i, in_list = text.splitlines(), 0, False
    while i < len(lines):
        line = lines[i]
        if fence := _FENCE.match(line):
            end = i + 1
            while end < len(lines) and not lines[end].strip().startswith(fence[1]):
                end += 1
            blocks.append(Block(fence[2], i + 2, "\n".join(lines[i + 1 : end])))
        elif line.startswith("    ") and not in_list and (i == 0 or not lines[i - 1].strip()):
            end = i
            while end + 1 < len(lines) and (
                lines[end + 1].startswith("    ") or not lines[end + 1].strip()
            ):
                end += 1
            text = "\n".join(each[4:] for each in lines[i : end + 1]).rstrip()
            blocks.append(Block("", i + 1, text))
        else:
            if line.strip():
                in_list = bool(re.match(r"\s*([-*+]|\d+\.)\s", line)) or (
                    in_list and line.startswith(" ")
                )
            prose.append(line)
            i += 1
            continue
        prose += [""] * (end + 1 - i)
        i = end + 1
    return Page("\n".join(prose), blocks)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    found: dict[str, int] = {}
    for line in read_page(text).prose.splitlines():
        if heading := _HEADING.match(line):
            words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading[2])
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{i}" if i else slug for slug, times in found.items() for i in range(times + 1)}


@functools.cache
def anchors_of(page: Path) -> set[str]:
    return anchors(page.read_text(encoding="utf-8"))


def links(text: str) -> list[str]:
    """Targets of links and pictures."""
    prose = _SPAN.sub("code", read_page(text).prose)
    return _LINK.findall(prose) + _HTML.findall(prose)


def bad_links(page: Path, root: Path) -> list[str]:
    """Relative links of a page that lead nowhere, or out of the repository."""
    found = []
    for link in links(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or not target.is_relative_to(root):
            found.append(f"{page.name}: {link} is not there")
        elif anchor and target.suffix == ".md" and anchor not in anchors_of(target):
            found.append(f"{page.name}: {link} has no such heading")
    return found


# -- command lines ---------------------------------------------------------------------------------

_SHELL = ("", "sh", "bash", "console", "shell")


def commands(block: Block) -> Iterator[list[str]]:
    """The words after `sonomime` of each command line in a block, without comments."""
    if block.language not in _SHELL:
        return
    for line in re.sub(r"\\\n", " ", block.text).splitlines():
        for part in re.split(r"&&|\|\||;|(?<=\s)\|(?=\s)", re.sub(r"(^|\s)#.*", "", line)):
            if found := re.search(r"(?:^|\s)(?:sonomime|-m sonomime\.cli)\s+([^=:\s].*)", part):
                before = part[: found.start()].split()
                if not before or found[0].strip().startswith("-m") or "=" in before[-1]:
                    yield shlex.split(found[1])


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its verbs."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from parsers(verb)


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {name for each in parsers(parser) for name in each._option_string_actions}


def verb_parser(parser: argparse.ArgumentParser, words: list[str]) -> Any:
    """The parser of the verb that `words` begin with; None if there is no such verb."""
    for word in words:
        verbs = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if not verbs or word.startswith("-"):
            break
        if word not in verbs[0].choices:
            return None
        parser = verbs[0].choices[word]
    return parser


def bad_command(parser: argparse.ArgumentParser, words: list[str]) -> str | None:
    """What is wrong with a whole command line; where `...` stands for more, only its verb and
    options are looked at."""
    if "..." in words:
        return bad_mention(parser, " ".join(words))
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            parser.parse_args(words)
        except SystemExit as end:
            if end.code:
                return errors.getvalue().strip()
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    shortened = given - options(
        verb_parser(parser, words)
    )  # argparse takes the beginning of a name
    return f"not the whole name: {', '.join(sorted(shortened))}" if shortened else None


def bad_mention(parser: argparse.ArgumentParser, text: str) -> str | None:
    """What is wrong with words after `sonomime`, as a sentence may mention them."""
    words = re.findall(r"^[\w-]+(?:\s+[a-z][\w-]*)?", text)
    verb = verb_parser(parser, words[0].split() if words else [])
    if verb is None:
        return "no such verb"
    unknown = set(_OPTION.findall(text)) - options(verb)
    return f"no such option: {', '.join(sorted(unknown))}" if unknown else None


def spans(text: str) -> list[str]:
    """Code within sentences."""
    return [" ".join(code.split()) for _, code in _SPAN.findall(read_page(text).prose)]


def mentioned_options(text: str) -> set[str]:
    """Options that stand alone in a sentence or table, such as `--scale S`."""
    return {name for span in spans(text) if span[0] == "-" for name in _OPTION.findall(span)}


# -- Python ----------------------------------------------------------------------------------------


def bad_python(block: Block) -> str | None:
    """Why a block of Python is none, or what it imports that is not there."""
    try:
        tree = ast.parse(block.text)
    except SyntaxError as error:
        return str(error)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            wanted = [(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        for module, name in wanted:
            first = module.split(".")[0]
            there = first == "sonomime" or importlib.util.find_spec(first)  # else: not installed
            if there and (missing := bad_name(module, name)):
                return missing
    return None


def bad_name(module: str, name: str = "") -> str | None:
    """Why a dotted name, from the module on, is not there."""
    try:
        thing = importlib.import_module(module)
    except ImportError as error:
        return str(error)
    for part in filter(None, name.split(".")):
        if not hasattr(thing, part):
            return f"{module} has no {name}"
        thing = getattr(thing, part)
    return None


def documented(text: str) -> list[tuple[str, list[str]]]:
    """Dotted name, and names of members, of each of Sphinx's `auto...` directives."""
    found = re.findall(r"^\.\. auto\w+:: (\S+)((?:\n   .*)*)", text, re.M)
    members = [re.search(r":members: (.*)", more) for _, more in found]
    return [
        (name, re.split(r",\s*", listed[1].strip()) if listed else [])
        for (name, _), listed in zip(found, members, strict=True)
    ]

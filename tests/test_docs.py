"""The pages: links lead somewhere, commands and options exist, Python blocks can be imported.

Nothing that a page shows is run, and neither a network nor the site's generator is needed.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import markdown_pages as md
import pytest

from sonomime.benchmarks import gpu_check
from sonomime.cli import build_parser

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("*.md", "docs/*.md", "docs/results/*.md", "docs/results/tables/*/*.md")
PAGES = [page for folder in FOLDERS for page in sorted(ROOT.glob(folder))]
# Written by former versions, whose commands they name.
FORMER = ("CHANGELOG.md", "docs/results/")

OF_OTHERS = {
    "--system-site-packages", "--exit-timeout-secs", "--grpc-address", "--http-address"
}  # fmt: skip
"""Options of other programs that pages mention alone."""

PRESENT = [page for page in PAGES if not str(page.relative_to(ROOT)).startswith(FORMER)]

every_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)
every_present_page = pytest.mark.parametrize(
    "page", PRESENT, ids=lambda page: page.relative_to(ROOT).as_posix()
)


@functools.cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@every_page
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    assert md.bad_links(page, ROOT) == []


@every_present_page
def test_whole_commands_can_be_parsed(page: Path) -> None:
    parser = build_parser()
    lines = [
        (block.line, words, wrong)
        for block in md.read_page(text_of(page)).blocks
        for words in md.commands(block)
        if (wrong := md.bad_command(parser, words))
    ]
    assert lines == []


@every_present_page
def test_commands_and_options_in_sentences_exist(page: Path) -> None:
    parser = build_parser()
    text = text_of(page)
    ours = [span[9:] for span in md.spans(text) if span.startswith("sonomime ")]
    assert [(span, wrong) for span in ours if (wrong := md.bad_mention(parser, span))] == []
    known = md.options(parser) | md.options(gpu_check.parser()) | OF_OTHERS
    assert md.mentioned_options(text) - known == set()


@every_page
def test_python_blocks_compile_and_what_they_import_is_there(page: Path) -> None:
    blocks = [b for b in md.read_page(text_of(page)).blocks if b.language == "python"]
    assert [(b.line, wrong) for b in blocks if (wrong := md.bad_python(b))] == []


def test_the_pages_hold_what_these_tests_look_for() -> None:
    pages = [md.read_page(text_of(page)) for page in PAGES]
    blocks = [block for page in pages for block in page.blocks]
    assert sum(len(list(md.commands(block))) for block in blocks) > 60
    assert sum(block.language == "python" for block in blocks) >= 6
    assert sum(len(md.links(text_of(page))) for page in PAGES) > 150


def test_every_page_is_in_the_menu() -> None:
    menus = re.findall(r"```\{toctree\}\n(.*?)```", text_of(ROOT / "docs/index.md"), re.S)
    listed = [name for menu in menus for name in re.findall(r"<(.+)>", menu)]
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert pages - set(listed) == {"index"}
    assert len(listed) == len(set(listed))


def test_what_the_api_page_names_is_there() -> None:
    found = md.documented(text_of(ROOT / "docs/api.md"))
    assert len(found) > 10
    for dotted, members in found:
        module, name = dotted.rsplit(".", 1)
        for member in ["", *members]:
            attribute = f"{name}.{member}" if member else name
            assert md.bad_name(module, attribute) is None, attribute


def test_the_gallery_is_small_and_shown() -> None:
    files = sorted((ROOT / "docs/gallery").iterdir())
    shown = {link for link in md.links(text_of(ROOT / "docs/gallery.md")) if "gallery/" in link}
    assert {f"gallery/{file.name}" for file in files} == shown
    for file in files:
        assert file.stat().st_size < 600_000, file.name
        assert b"ANIM" in file.read_bytes()[:64] and b"Synthetic ultrasound" in file.read_bytes()


# -- what is wrong is found ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("see [that](absent.md)", "absent.md is not there"),
        ("see [a\nlong one](page.md#nowhere)", "no such heading"),
        ("![picture](no.webp)", "no.webp"),
        ('<img src="no.png">', "no.png"),
        ("[out](../../outside.md)", "outside.md"),
    ],
)
def test_a_broken_link_is_found(text: str, word: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    good = "# A heading: `code` & more\n[here](#a-heading-code--more) `[no](link)`\n\n    [no](x)\n"
    page.write_text(good)
    assert md.bad_links(page, tmp_path) == []
    page.write_text(good + "\n" + text)
    (problem,) = md.bad_links(page, tmp_path)
    assert word in problem


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("sonomime animate a.png b.mp4 -o c.mp4 --sclae 2", "--sclae"),
        ("pip install x && sonomime anmate a b -o c", "anmate"),
        ("sonomime animate a.png -o c.mp4  # too few", "required"),
        ("OMP_NUM_THREADS=2 sonomime train lite --data d -o r --epoch 3", "--epoch"),
        ("torchrun --nnodes=2 -m sonomime.cli train ... --no-such-thing", "--no-such-thing"),
        ("sonomime train lite --data d \\\n    -o r --wrong", "--wrong"),
        ("sonomime animate a.png b.mp4 -o c.mp4 --side-by-sid", "--side-by-sid"),
    ],
)
@pytest.mark.parametrize("form", ["```\n{}\n```", "text\n\n    {}\n", "```sh\n{}\n```"])
def test_a_wrong_command_is_found(line: str, word: str, form: str) -> None:
    page = md.read_page(form.format(line.replace("\n", "\n    ") if "text" in form else line))
    (words,) = [words for block in page.blocks for words in md.commands(block)]
    assert word in (md.bad_command(build_parser(), words) or "")


def test_a_wrong_mention_is_found() -> None:
    parser = build_parser()
    assert md.bad_mention(parser, "study serve --bind HOST") is None
    assert md.bad_mention(parser, "study serv") and md.bad_mention(parser, "bench --rat")
    assert md.mentioned_options("set `--sclae S` or\n`--scale`") == {"--sclae", "--scale"}


@pytest.mark.parametrize(
    "code",
    [
        "def broken(:",
        "import sonomime.nowhere",
        "from sonomime.runtime import Nobody",
        "if x:\n    from numpy import nothing_of_that_name",
    ],
)
def test_wrong_python_is_found(code: str) -> None:
    assert md.bad_python(md.Block("python", 1, code))
    assert md.bad_python(md.Block("python", 1, "from sonomime.runtime import Animator")) is None

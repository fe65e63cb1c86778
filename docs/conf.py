"""How `make docs` turns these pages into a site (site/index.html), with Sphinx, MyST and Furo.

Why these: they are maintained and permissive (BSD, MIT), read Markdown and our docstrings as they
are, can make each warning an error, and load nothing from other hosts. MkDocs 1 has had no release
since 2024, and its theme Material gets repairs alone.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

project = "sonomime"
author = "The sonomime maintainers"
copyright = author
version = release = re.findall(r'__version__ = "(.+)"', (ROOT / "__init__.py").read_text())[0]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["results/tables/*/rows"]
suppress_warnings = ["misc.highlighting_failure"]  # outputs beside commands are no language

myst_heading_anchors = 4  # as GitHub makes them
myst_enable_extensions = ["attrs_block"]

# Docstrings write `name` for code.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autoclass_content = "both"
autodoc_mock_imports = ["aiohttp", "fastcrc"]  # the extra `live`
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "sonomime"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
html_show_copyright = False
html_show_search_summary = False  # a browser fetches it from a server alone

# Files of the root that are pages of the site: a page here includes each of them.
ROOT_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
_INCLUDE = re.compile(r"```\{include\} \.\./(\w+\.md)\n```\n")
_LINK = re.compile(r"(\]\(|src=\")(?!\w+:|#)([^)\s\"]+)")


def page_of_the_root(included: re.Match[str]) -> str:
    """README and the like, whose links begin at the root, as if they lay in docs/."""

    def from_docs(link: re.Match[str]) -> str:
        start, target = link.groups()
        return start + (target.removeprefix("docs/") if target[:5] == "docs/" else "../" + target)

    return _LINK.sub(from_docs, (ROOT / included[1]).read_text())


def leads_out(name: str) -> Callable[[re.Match[str]], str]:
    """Marks links to Markdown outside of docs/, which Sphinx would take for a page."""
    folder = (ROOT / "docs" / name).parent

    def marked(link: re.Match[str]) -> str:
        inside = (folder / link[1]).resolve().is_relative_to(ROOT / "docs")
        return link[0] if inside else f"](path:{link[1]})"

    return marked


def read_page(app: Any, name: str, source: list[str]) -> None:
    """GitHub and the site show the same files; here links lead to the site's pages."""
    text = _INCLUDE.sub(page_of_the_root, source[0])
    for file, page in ROOT_PAGES.items():
        text = re.sub(rf"\]\((?:\.\./)+{file}", f"]({'../' * name.count('/')}{page}", text)
    # Other files outside of docs/ are for download.
    source[0] = re.sub(r"\]\((\.\./[^)]*\.md)\)", leads_out(name), text)
    if name == "results/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n*\ntables/*/table\n```\n"


def setup(app: Any) -> None:
    app.connect("source-read", read_page)

"""Make text from untrusted files safe to print."""

from __future__ import annotations

import unicodedata

_DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def printable(text: str) -> str:
    """The text with control characters escaped, and those that change the direction of writing;
    line breaks stay.

    A terminal obeys them: a name could clear the screen or hide a message.
    """
    return "".join(
        char.encode("unicode_escape").decode() if _controls(char) and char != "\n" else char
        for char in text
    )


def _controls(char: str) -> bool:
    kind, direction = unicodedata.category(char), unicodedata.bidirectional(char)
    return kind in ("Cc", "Cs", "Zl", "Zp") or (kind == "Cf" and direction in _DIRECTIONS)

"""Make text from untrusted files safe to print."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """The text with control and format characters escaped; line breaks stay.

    A terminal obeys escape sequences: a name could clear the screen or hide a message.
    """
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char).startswith("C") and char != "\n"
        else char
        for char in text
    )

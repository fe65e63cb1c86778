"""Make text from untrusted files safe to print."""

from __future__ import annotations

import re

# Control characters but line breaks, halves of surrogate pairs, line and paragraph separators, and
# what changes the direction of writing.
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with control characters escaped; line breaks stay.

    A terminal obeys them: a name could clear the screen or hide a message.
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)

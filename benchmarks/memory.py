"""How much memory this process has."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_LINES = {"VmRSS": "now", "VmHWM": "peak"}


def memory() -> dict[str, float]:
    """MB (10^6 bytes) that lie in memory `now`, and the `peak` since the process began; nothing
    where Linux does not say.

    Not from getrusage, whose peak may be that of the process which started this one.
    """
    found = {}
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in _LINES:
                found[_LINES[name]] = int(value.split()[0]) * 1024 / 1e6
    return found

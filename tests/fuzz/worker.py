"""Feed damaged files to one reader: ``python worker.py KIND COUNT FOLDER``.

Each must be read, or refused with an error of ours, within 20 seconds and 2 GiB: nothing else.
Prints a line of JSON per failure; ``last.txt`` in the folder names the case in work, for crashes.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import traceback
from pathlib import Path
from random import Random
from typing import Any

from mutations import mutated
from targets import TARGETS

from sonomime.runtime.support.errors import SonomimeError

SECONDS, MEMORY = 20, 2 << 30


def main(kind: str, count: int, folder: Path) -> None:
    """Run ``count`` cases; a case is its kind and its number, on any machine."""
    target = TARGETS[kind](folder)
    target.use()  # undamaged it is read; and what is imported now takes no share of the memory
    sound = target.file.read_bytes()
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _too_long)
    for case in range(count):
        (folder / "last.txt").write_text(f"{kind} {case}")
        target.damage(mutated(sound, Random(f"{kind} {case}")))
        signal.alarm(SECONDS)
        try:
            target.use()
        except SonomimeError:
            pass
        except BaseException as error:
            signal.alarm(0)
            said = "".join(traceback.format_exception(error)[-3:])
            print(json.dumps({"case": case, "error": f"{type(error).__name__}: {error}"[:200],
                              "trace": said[-1500:]}), flush=True)  # fmt: skip
        signal.alarm(0)
    print(json.dumps({"done": count}))


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"took more than {SECONDS} seconds")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))

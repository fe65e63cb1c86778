"""Feeds damaged files to one reader, in a process of its own.

Each must be read, or refused with an error of ours, within its time and 2 GiB: nothing else.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import traceback
from pathlib import Path
from random import Random

from sonomime.runtime.support.errors import SonomimeError

from .mutations import mutated
from .targets import TARGETS

MEMORY = 2 << 30


def run(kind: str, count: int, folder: Path) -> None:
    """Run ``count`` cases; a case is its kind and its number, on any machine.

    ``case.txt`` in the folder names the case in work, for crashes; ``failures.txt`` has the errors
    that are not ours, and "done" in the end.
    """
    os.environ["HOME"] = os.environ["XDG_CACHE_HOME"] = str(folder)
    target = TARGETS[kind](folder)
    target.use()  # undamaged it is read; and what is imported now takes no share of the memory
    sound = target.file.read_bytes()
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, resource.RLIM_INFINITY))
    with open(folder / "failures.txt", "w") as failures:
        for case in range(count):
            (folder / "case.txt").write_text(f"{kind} {case}")
            put = target.put or target.file.write_bytes
            put(mutated(sound, Random(f"{kind} {case}")))
            # Ends the process where it hangs, in native code too.
            faulthandler.dump_traceback_later(target.seconds, exit=True)
            try:
                target.use()
            except SonomimeError:
                pass
            except BaseException as error:
                told = "".join(traceback.format_exception(error)[-3:])
                failures.write(f"{kind} {case}: {told[-1500:]}\n")
            faulthandler.cancel_dump_traceback_later()
        failures.write("done")

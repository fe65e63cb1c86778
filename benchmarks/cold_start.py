"""How long a new process takes until its first frame."""

from __future__ import annotations

import json
import subprocess
import sys
from time import perf_counter

import numpy as np

from ..runtime.bundle.bundle import Bundle
from ..runtime.support.errors import BackendError

# The steps begin and end at these times, of a clock that all processes share.
_SCRIPT = """
from time import perf_counter
marks = [perf_counter()]
import json, sys
from sonomime.runtime import Animator, SonomimeError
from sonomime.runtime.readers.stills import read_image
bundle, source, driving, options = json.loads(sys.argv[1])
marks.append(perf_counter())
try:
    animator = Animator.open(bundle, **options)
    marks.append(perf_counter())
    animator.set_source(read_image(source))
    marks.append(perf_counter())
    animator.animate(read_image(driving))
    marks.append(perf_counter())
except SonomimeError as error:
    sys.exit(print(json.dumps({"message": error.message, "hint": error.hint})))
print(json.dumps(marks), flush=True)
"""
_STEPS = ("interpreter", "imports", "open", "set_source", "first_frame")


def time_cold_start(
    bundle: Bundle,
    backend: str,
    threads: int,
    device: int | None = None,
    precision: str | None = None,
) -> dict[str, float]:
    """Start an interpreter, open a bundle and make a frame of its golden pictures.

    Args:
        backend, threads, device, precision: as for Animator.open; None leaves one out.

    Returns:
        Milliseconds by step: interpreter, imports, open, set_source, first_frame; and `total`.

    Raises:
        BackendError: the process failed.
    """
    golden = bundle.manifest.golden
    pictures = (str(bundle.folder / each.file) for each in (golden.source, golden.driving))
    options = {"backend": backend, "threads": threads, "device": device, "precision": precision}
    given = {name: value for name, value in options.items() if value is not None}
    argument = json.dumps([str(bundle.folder), *pictures, given])
    begin = perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, argument], capture_output=True, text=True, errors="replace",
        check=False,
    )  # fmt: skip
    said = json.loads(done.stdout.partition("\n")[0] or "{}")
    if isinstance(said, dict):
        why = said.get("message") or (done.stderr.strip() or "no reason").splitlines()[-1]
        raise BackendError(
            f"a new process did not reach its first frame: {why}", said.get("hint", "")
        )
    spans = [*np.diff([begin, *said]).tolist(), said[-1] - begin]
    steps = zip((*_STEPS, "total"), spans, strict=True)
    return {step: round(1e3 * seconds, 2) for step, seconds in steps}

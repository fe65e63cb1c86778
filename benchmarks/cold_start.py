"""How long a new process takes to its first frame."""

from __future__ import annotations

import json
import subprocess
import sys
from operator import sub
from time import perf_counter

from ..runtime.bundle.bundle import Bundle
from ..runtime.support.errors import BackendError

# It prints a line the moment that the frame is there, so that the caller can time the whole.
_SCRIPT = """
from time import perf_counter
marks = [perf_counter()]
import json, sys
from sonomime.runtime import Animator, SonomimeError
from sonomime.runtime.media.frames import read_image
bundle, backend, threads, source, driving, device = json.loads(sys.argv[1])
marks.append(perf_counter())
try:
    animator = Animator.open(bundle, backend, threads=threads, device=device)
    marks.append(perf_counter())
    animator.set_source(read_image(source))
    marks.append(perf_counter())
    animator.animate(read_image(driving))
    marks.append(perf_counter())
except SonomimeError as error:
    sys.exit(print(json.dumps({"message": error.message, "hint": error.hint})))
print(json.dumps(marks), flush=True)
"""


def time_cold_start(
    bundle: Bundle, backend: str, threads: int, device: int | None = None
) -> dict[str, float]:
    """Start an interpreter, open a bundle and make a frame of its golden pictures.

    Args:
        backend, threads, device: as for Animator.open.

    Returns:
        Milliseconds by step: interpreter, imports, open, set_source, first_frame; and `total`.

    Raises:
        BackendError: the process failed.
    """
    golden = bundle.manifest.golden
    source, driving = (str(bundle.folder / each.file) for each in (golden.source, golden.driving))
    argument = json.dumps([str(bundle.folder), backend, threads, source, driving, device])
    command = [sys.executable, "-c", _SCRIPT, argument]
    begin = perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        total = perf_counter() - begin
        errors = process.stderr.read().decode(errors="replace").strip()
    said = json.loads(line) if line else {"message": (errors or "no reason").splitlines()[-1]}
    if isinstance(said, dict):
        raise BackendError(
            f"a new process did not reach its first frame: {said['message']}", said.get("hint", "")
        )
    names = ("imports", "open", "set_source", "first_frame")
    steps = dict(zip(names, map(sub, said[1:], said), strict=True))
    steps = {"interpreter": total - sum(steps.values()), **steps, "total": total}
    return {step: round(1e3 * seconds, 2) for step, seconds in steps.items()}

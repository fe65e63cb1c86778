"""How many frames a second `sonomime animate` reaches on a clip, files read and written."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from ..runtime.animator import Animator
from ..runtime.pipeline import Job, animate_files
from ..runtime.still import SAMPLES
from .inputs import PAIRS


def measure_offline(animator: Animator, pair: int = 0) -> dict[str, Any]:
    """Animate a pair of samples into a video (H.264) at the source's size, as `animate` does it:
    the clip is decoded, the pair aligned once, every frame composed, marked and encoded.

    Returns:
        Plain data: the files, `size` (width, height), `frames`, `seconds` of it all without
        opening the bundle, and `frames_per_second`.

    Raises:
        BackendError: a stage failed.
        OutputError: the temporary folder cannot be written.
    """
    still, clip = PAIRS[pair]
    with TemporaryDirectory() as folder:
        job = Job(SAMPLES / still, SAMPLES / clip, Path(folder, "out.mp4"))
        begin = perf_counter()
        done = animate_files(animator, job)
        seconds = perf_counter() - begin
    return {
        "scenario": "offline", "source": still, "driving": clip, "output": "H.264",
        "size": list(done.size), "frames": done.frames, "seconds": seconds,
        "frames_per_second": done.frames / seconds,
    }  # fmt: skip

"""From a driving frame to the browser's canvas: how long frames take through the page.

    PYTHONPATH=tests python -m sonomime.benchmarks.glass --seconds 60 --json glass.json

Runs `sonomime stream` on the CPU with a motion template, and its page in a headless Chromium,
which tests/chromium.py drives. Each frame carries its number, when its driving frame was due and
when it was made; the page notes when it has drawn it. Both clocks are this machine's. What a screen
needs to show the canvas is not in it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..runtime.still import SAMPLES
from ..runtime.support.atomic_files import atomic_write_text
from .measure import environment, table

WATCH = """
import('/viewer.js').then((viewer) => {
  window.drawnFrames = [];
  let last = -1;
  function look() {
    const frame = viewer.newest();
    if (frame && frame.number !== last && frame.latency_ms !== null) {
      last = frame.number;
      window.drawnFrames.push(
        [frame.number, frame.latency_ms, performance.timeOrigin + frame.at - 1000 * frame.made_at]);
    }
    requestAnimationFrame(look);
  }
  look();
})
"""


def drawn_frames(seconds: float, threads: int) -> list[list[float]]:
    """Of each drawn frame: its number, milliseconds until it was made, and then until drawn."""
    from chromium import browser  # of tests/

    words = ["stream", "--source", str(SAMPLES / "still.png"), "--driving", "breathing", "--loop"]
    words += ["--http", "0", "--threads", str(threads), "--backend", "cpu"]
    code = "import sys; from sonomime.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *words]
    with (
        TemporaryDirectory() as folder,
        subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as stream,
    ):
        try:
            assert stream.stderr is not None
            said = iter(stream.stderr.readline, b"")
            url = next(found[0] for line in said if (found := re.search(rb"http://\S+", line)))
            with browser(Path(folder)) as page:
                page.open(url.decode(), 1280, 800)
                page.until("document.getElementById('state')?.textContent.trim() == 'live'")
                page.value(WATCH)
                page.until("window.drawnFrames && drawnFrames.length > 50")  # warm
                page.value("drawnFrames.length = 0")
                page.until(f"drawnFrames.length >= {25 * seconds}", 60 + 4 * seconds)
                return list(page.value("drawnFrames"))
        finally:
            stream.terminate()


def quantiles(values: np.ndarray) -> dict[str, Any]:
    p50, p95, p99 = (float(np.percentile(values, q)) for q in (50, 95, 99))
    return {"frames": len(values), "p50": p50, "p95": p95, "p99": p99, "max": float(values.max())}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(words)
    machine = environment()
    frames = np.array(drawn_frames(args.seconds, args.threads))
    columns = {
        "due to made": frames[:, 1], "made to drawn": frames[:, 2],
        "due to drawn": frames[:, 1] + frames[:, 2],
    }  # fmt: skip
    rows = [(name, quantiles(values)) for name, values in columns.items()]
    missed = int(np.diff(frames[:, 0]).sum()) - len(frames) + 1
    shown = {"frames": "frames", "p50": "p50", "p95": "p95", "p99": "p99", "max": "max"}
    print("\n".join(table("ms", rows, shown)))
    print(f"frames that the page did not draw: {missed}")
    if args.json:
        data = {"machine": machine, "frames": frames.tolist(), "missed": missed}
        atomic_write_text(args.json, json.dumps(data))


if __name__ == "__main__":
    main()

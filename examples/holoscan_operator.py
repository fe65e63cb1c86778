"""An operator for NVIDIA Holoscan that animates a still with the frames that it receives.

NOT TESTED: Holoscan needs an NVIDIA GPU, and no one was at hand. It is written by the manual of
Holoscan 3: https://docs.nvidia.com/holoscan/sdk-user-guide.

    pip install "sonomime[gpu]" holoscan
    python holoscan_operator.py still.png driving.mp4

The operator takes uint8 tensors (H, W) or (H, W, 3) on the host, and emits the synthesized frame,
marked, with its state beside it. It keeps the frames' order; Holoscan's queues decide what is
dropped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from holoscan.conditions import CountCondition
from holoscan.core import Application, Operator, OperatorSpec

from sonomime.runtime import Animator
from sonomime.runtime.media.mark import draw_mark
from sonomime.runtime.readers.open_source import open_source


class SonomimeOp(Operator):
    """in: {"frame": tensor}; out: {"frame": tensor}, and the frame's state."""

    def __init__(self, fragment: Any, *args: Any, still: Path, **more: Any) -> None:
        self._still = still
        self._animator: Animator | None = None
        super().__init__(fragment, *args, **more)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("in")
        spec.output("out")
        spec.output("state")

    def start(self) -> None:
        self._animator = Animator.open()
        self._animator.set_source(next(iter(open_source(self._still))).image)

    def stop(self) -> None:
        if self._animator is not None:
            self._animator.close()

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        frame = np.asarray(op_input.receive("in")["frame"])
        assert self._animator is not None
        made = draw_mark(self._animator.animate(frame, size="source"))
        quality = self._animator.quality
        op_output.emit({"frame": made}, "out")
        op_output.emit("live" if quality is None else quality.state, "state")


class ClipOp(Operator):
    """Emits the frames of a clip; put your own source in its place."""

    def __init__(self, fragment: Any, *args: Any, clip: Path, **more: Any) -> None:
        self._frames = iter(open_source(clip))
        super().__init__(fragment, *args, **more)

    def setup(self, spec: OperatorSpec) -> None:
        spec.output("out")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        op_output.emit({"frame": next(self._frames).image}, "out")


class PrintOp(Operator):
    """Says what comes; put your viewer in its place."""

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("in")
        spec.input("state")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        frame, state = op_input.receive("in")["frame"], op_input.receive("state")
        print(np.asarray(frame).shape, state)


class Animate(Application):
    def __init__(self, still: Path, clip: Path) -> None:
        self._still, self._clip = still, clip
        super().__init__()

    def compose(self) -> None:
        frames = sum(1 for _ in open_source(self._clip))
        clip = ClipOp(self, CountCondition(self, frames), name="clip", clip=self._clip)
        sonomime = SonomimeOp(self, name="sonomime", still=self._still)
        printer = PrintOp(self, name="printer")
        self.add_flow(clip, sonomime, {("out", "in")})
        self.add_flow(sonomime, printer, {("out", "in"), ("state", "state")})


if __name__ == "__main__":
    Animate(Path(sys.argv[1]), Path(sys.argv[2])).run()

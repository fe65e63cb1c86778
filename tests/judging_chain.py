"""The arithmetic chain with a stage that says how a frame went, for tests of what listens to it."""

from __future__ import annotations

from dataclasses import replace

from arithmetic_chain import CHAIN, MOVE, Arithmetic, tensor

from sonomime.runtime.bundle.manifest import QUALITY, Stage

JUDGING = replace(
    CHAIN,
    stages=(
        *CHAIN.stages[:-1],
        Stage("motion", "frame", (MOVE,), (tensor(QUALITY, 1, 4),)),
        CHAIN.stages[-1],
    ),
)


class Judging(Arithmetic):
    """Sure of a frame as long as its level is near the reference's."""

    def __init__(self) -> None:
        super().__init__(JUDGING)
        self.stages["motion"] = self.judge

    def judge(self) -> None:
        t = self.tensors
        # What moves is the frame's level less the gap between reference and source.
        moved = abs(t["displacement"][0, 0, 0, 0] - t["source_mean"][0])
        self.write(QUALITY, [[1 / (1 + moved), 0, 0, 0]])

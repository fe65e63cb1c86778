"""A chain of displacements upon a backend of plain numpy, for tests of what drives a chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sonomime.runtime.backends.base import allocate_all
from sonomime.runtime.bundle import manifest as contract
from sonomime.runtime.bundle.manifest import Stage, Tensor

SIZE = 16


def tensor(name: str, *shape: int, dtype: Any = "float32") -> Tensor:
    return Tensor(name, dtype, shape or (1,), "")


def image(name: str) -> Tensor:
    return tensor(name, 1, 1, SIZE, SIZE, dtype="uint8")


SOURCE, SEEN, KEPT, SCALE = map(tensor, ("source_mean", "driving_mean", "reference_gap", "scale"))
MOVE, STATE, NEXT = tensor("displacement", 1, 1, 1, 2), tensor("state"), tensor("next_state")
CHAIN = contract.Chain(
    image=contract.ImageFormat(SIZE, 1),
    geometry="half_pixel",
    control=contract.DisplacementControl(1, 1),
    stages=(
        Stage("source", "source", (image("source_image"),), (SOURCE,)),
        Stage("observe", "observe", (image("driving_frame"),), (SEEN,)),
        Stage("reference", "reference", (SEEN, SOURCE), (KEPT,)),
        Stage("transfer", "frame", (KEPT, SEEN, SCALE, STATE), (MOVE, NEXT)),
        Stage("generator", "frame", (SOURCE, MOVE), (image("frame"),)),
    ),
    controls=(contract.ControlInput("scale", 1.0, (0.0, 10.0), "", "factor of the motion"),),
    recurrent=(contract.Recurrent("next_state", "state"),),
)


def with_stage(chain: contract.Chain, name: str, **changes: Any) -> contract.Chain:
    """The chain, one of its stages changed."""
    stages = tuple(replace(s, **changes) if s.name == name else s for s in chain.stages)
    return replace(chain, stages=stages)


PLACES = tensor("alignment", 1, 1, 1, 2)
FINDER = Stage("finder", "landmarks", (image("landmark_image"),), (tensor("landmarks", 1, 1, 3),))
ALIGNED = with_stage(CHAIN, "transfer", inputs=(KEPT, SEEN, SCALE, STATE, PLACES))
ALIGNED = replace(
    ALIGNED, control=contract.DisplacementControl(1, 1, landmarks=("level",)),
    stages=(FINDER, *ALIGNED.stages),
)  # fmt: skip
"""The same, moved by the alignment as well; its landmark is the mean level, three times."""


class Arithmetic:
    """A backend whose stages are a line of numpy each: the frame is the source's mean level, plus
    `scale` times what the driving frame's has moved from the reference's."""

    name, device, precision = "arithmetic", "numpy", "fp32"
    seconds: Mapping[str, float] = {}

    def __init__(self, chain: contract.Chain = CHAIN) -> None:
        self.tensors = allocate_all(chain)
        self.chain = chain
        self.runs: list[str] = []
        t, write = self.tensors, self.write
        self.stages: dict[str, Callable[[], Any]] = {
            "finder": lambda: write("landmarks", t["landmark_image"].mean()),
            "source": lambda: write("source_mean", t["source_image"].mean()),
            "observe": lambda: write("driving_mean", t["driving_frame"].mean()),
            # Upon the source as well, so that a new source asks for it again.
            "reference": lambda: write("reference_gap", t["driving_mean"] - t["source_mean"]),
            "transfer": self.transfer,
            "generator": lambda: write(
                "frame", np.clip(t["source_mean"] + t["displacement"][0, 0, 0, 0], 0, 255)
            ),
        }

    def transfer(self) -> None:
        t = self.tensors
        moved = t["scale"] * (t["driving_mean"] - t["reference_gap"])
        self.write("displacement", moved + t.get("alignment", 0))
        self.write("next_state", t["state"] + 1)

    def view(self, name: str) -> NDArray[Any]:
        return self.tensors[name]

    def read(self, name: str) -> NDArray[Any]:
        return self.tensors[name].copy()

    def write(self, name: str, value: ArrayLike) -> None:
        self.tensors[name][...] = value

    def copy(self, source: str, target: str) -> None:
        self.write(target, self.tensors[source])

    def run(self, stage: str) -> None:
        self.runs.append(stage)
        self.stages[stage]()

    def run_frame(self) -> None:
        for stage in self.chain.stages:
            if stage.per_frame:
                self.run(stage.name)
        for pair in self.chain.recurrent:
            self.copy(pair.from_, pair.to)

    def close(self) -> None:
        self.tensors.clear()


def level(grey: int) -> NDArray[np.uint8]:
    return np.full((1, 1, SIZE, SIZE), grey, np.uint8)

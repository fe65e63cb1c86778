"""One clip or pair measured: in this process, or by a worker of `runtime/support/spread.py`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from ...runtime.support.errors import BackendError
from ..data.clip_frames import ClipFrames
from . import strips
from .candidate import Candidate, open_candidate
from .detection import detect
from .loop import Points, Row
from .networks.catalogue import Network, open_networks
from .tasks import at_own_size, leakage, predict, reconstruct
from .tracking import follow
from .transfer import transfer
from .truth import Pair, read_pair
from .viewer import Features, Viewer


class Item(NamedTuple):
    """What is measured: a clip, or a phantom's pair. `other`: the clip of another subject that
    drives it too, of a transfer the one that drives it; `places`: see `mean_places`."""

    case: ClipFrames | Pair
    other: ClipFrames | None = None
    places: Mapping[str, Points] | None = None

    @property
    def name(self) -> str:
        return self.case.name if isinstance(self.case, Pair) else self.case.clip.name


class Measured(NamedTuple):
    """What was measured, what is drawn, and what each network keeps (none if there are none)."""

    row: Row
    sketch: strips.Sketch
    features: Sequence[Features]


@dataclass(frozen=True)
class Measurer:
    """Measures one item after the other."""

    candidate: Candidate
    networks: Sequence[Network]
    task: str
    alignment: str
    max_frames: int | None

    def __call__(self, item: Item) -> Measured:
        viewer = Viewer(self.networks) if self.networks else None
        row, sketch = self._measure(item, viewer)
        return Measured(row, sketch, viewer.taken() if viewer else ())

    def _measure(self, item: Item, viewer: Viewer | None) -> tuple[Row, strips.Sketch]:
        candidate, clip, other, most = self.candidate, item.case, item.other, self.max_frames
        if isinstance(clip, Pair):
            image = candidate.own.session.chain.image
            case = read_pair(clip, image.size, image.channels)
            row, frames = predict(candidate, clip, case, self.alignment, most, viewer)
            return row, strips.Sketch(case.source, frames, case.start)
        if self.task == "tracking":
            row, (still, *frames) = follow(candidate, clip, most)
            return row, strips.Sketch(still.driving, frames, still.points)
        if self.task == "detection":
            row, frames = detect(candidate, clip, item.places, most)
            return row, strips.Sketch(frames[0].driving, frames)
        middle = np.array(clip.frames[len(clip) // 2])
        if self.task == "transfer":
            row, frames = transfer(candidate, clip, other, self.alignment, most, viewer)
            return row, strips.Sketch(middle, frames)
        row, frames = reconstruct(candidate, clip, most, viewer)
        row |= {"own_size": at_own_size(candidate, clip, most)}
        row |= {"driver": None, "leakage": None}
        sketch = strips.Sketch(middle, frames)
        if other is not None:
            row["driver"] = other.clip.name
            row["leakage"], leaked = leakage(candidate, clip, other, most)
            about = f"driven by {row['driver']}, another subject"
            sketch = sketch._replace(other_title=about, other=leaked)
        return row, sketch


class Worker:
    """A `Measurer` in another process, perhaps on another machine.

    Args:
        folder: that paths start from.
        candidate: its path; `facts`: of it, which go into the report; `backend`: what opens it, if
            it is a bundle.
        networks: as `--network` gives them.
        how: the rest of the Measurer's fields.

    Raises:
        BackendError: something is another one here than the facts say.
    """

    def __init__(
        self, folder: str, candidate: Path, facts: Mapping[str, Any], backend: str, threads: int,
        opencv_threads: int, networks: Sequence[str], how: Mapping[str, Any],
    ) -> None:  # fmt: skip
        with suppress(OSError):  # where all paths are whole ones, another machine may not have it
            os.chdir(folder)
        torch.set_num_threads(threads)
        cv2.setNumThreads(opencv_threads)  # DIS makes another flow with another number
        self._opened = ExitStack()  # until the process ends
        opened = self._opened.enter_context(open_candidate(candidate, backend, threads))
        for name, value in opened.facts.items():
            if value != facts[name]:
                what = f"a worker has another {name}: {value}, and not {facts[name]}"
                raise BackendError(what, "have the same model and libraries on every machine")
        self._measure = Measurer(opened, open_networks(networks), **how)

    def __call__(self, item: Item) -> Measured:
        return self._measure(item)

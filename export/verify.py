"""Compare a bundle with the model it was made from, on real frames.

The bundle is opened as a runtime opens it. First each stage gets the model's own tensors, so that
an error shows where it is made; then the whole chain gets images only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..runtime.backends import open_backend
from ..runtime.backends.base import Backend
from ..runtime.bundle.bundle import Bundle
from ..runtime.bundle.manifest import DRIVING_FRAME, FRAME, SOURCE_IMAGE, Chain, Tolerances
from ..runtime.media.frames import Image, letterbox, to_channels
from ..runtime.media.pixels import levels_apart, psnr, to_planes
from ..runtime.readers.open_source import open_source
from ..runtime.session import Session
from ..runtime.still import SAMPLES
from ..runtime.support.errors import ExportError
from ..runtime.support.progress import progress
from ..training.models.base import Array, Oracle, Precision, Tensors

FP32 = Tolerances(stage_abs=1e-4, frame_levels=1)
# In half precision only the frames are compared; the stages just have to be finite.
FP16 = Tolerances(stage_abs=math.inf, psnr_db=45.0)

# Every control but `relative` away from its default.
AWAY = {"min_cutoff": 1.5, "beta": 10.0, "scale": 0.7, "dt_seconds": 0.1}

DRIVING_FRAMES = 4
LOOKED_AT = 150  # the driving frames are taken from the first frames of a video


class Frames(NamedTuple):
    """Real frames at the model's size, uint8 (S, S) or (S, S, 3). The first driving frame is the
    reference."""

    source: Image
    driving: tuple[Image, ...]


@dataclass
class Parity:
    """How far a bundle is from the model: absolute errors, grey levels, dB (lowest frame)."""

    stages: dict[str, float] = field(default_factory=dict)
    frame_levels: int = 0
    psnr_db: float = math.inf


def read_frames(path: Path | None, size: int, channels: int) -> Frames:
    """Frames to verify with: of a video or folder, or the samples that come with sonomime.

    Raises:
        ExportError: no path was given and there are no samples.
        InputError: they cannot be read.
    """
    given = [path] if path else [SAMPLES / "still.png", SAMPLES / "driving.mp4"]
    if path is None and not all(file.is_file() for file in given):
        hint = "give some: --frames VIDEO_OR_FOLDER"
        raise ExportError("there are no frames to verify the bundle with", hint)
    images: list[Image] = []
    for file in given:
        source = open_source(file, channels=channels)
        frames = (to_channels(frame.image, channels) for frame in islice(source, LOOKED_AT))
        images += [letterbox(frame, size)[0] for frame in frames]
    last = len(images) - 1
    chosen = np.linspace(min(1, last), last, DRIVING_FRAMES).round().astype(int)
    return Frames(images[0], tuple(images[i] for i in chosen))


def expected_tensors(oracle: Oracle, chain: Chain, frames: Frames) -> list[Tensors]:
    """All tensors of all frames by the model, as `verify` compares them.

    The last driving frame comes first, with every control at its default: it becomes the golden
    sample. The others are smoothed, and one is in absolute motion, if the model has it.
    """
    oracle.set_source(frames.source, frames.driving[0])
    order = [frames.driving[-1], *frames.driving[:-1]]
    names = {control.name for control in chain.controls}
    away = {name: value for name, value in AWAY.items() if name in names}
    controls = [{}, *([away] * (len(order) - 1))]
    if "relative" in names and len(order) > 2:
        controls[2] = away | {"relative": 0.0}
    pairs = list(zip(order, controls, strict=True))
    return [oracle.animate(*pair) for pair in progress(pairs, label="computing with torch")]


def verify(
    folder: Path, frames: Frames, expected: Sequence[Tensors], precision: Precision
) -> Parity:
    """Compare the bundle in ``folder`` with the model's tensors of these frames.

    Raises:
        ExportError: they differ by more than the precision's tolerances, or are not finite.
    """
    bundle = Bundle.open(folder)
    tolerances, parity = FP16 if precision == "fp16" else FP32, Parity()
    with closing(open_backend("ort-cpu", bundle)) as backend:
        for tensors in progress(expected, label="comparing the stages"):
            _compare_stages(bundle, backend, tensors, tolerances, parity)
        # The whole chain, from images alone: source, reference, then frame after frame.
        session = Session(bundle.manifest, backend)
        session.set_source(expected[0][SOURCE_IMAGE])
        session.set_reference(to_planes(frames.driving[0]))
        for tensors in expected:
            for control in session.chain.controls:
                session.set_control(control.name, float(tensors[control.name][0]))
            found, wanted = session.animate(tensors[DRIVING_FRAME]), tensors[FRAME]
            parity.frame_levels = max(parity.frame_levels, levels_apart(found, wanted))
            parity.psnr_db = min(parity.psnr_db, psnr(found, wanted))
    levels, decibels = tolerances.frame_levels, tolerances.psnr_db
    if levels is not None and parity.frame_levels > levels:
        raise _mismatch(f"frames are off by {parity.frame_levels} grey levels, not {levels}")
    if decibels is not None and parity.psnr_db < decibels:
        raise _mismatch(f"frames agree to {parity.psnr_db:.1f} dB, not {decibels:.0f} dB")
    return parity


def _compare_stages(
    bundle: Bundle, backend: Backend, tensors: Tensors, tolerances: Tolerances, parity: Parity
) -> None:
    levels = math.inf if tolerances.frame_levels is None else tolerances.frame_levels
    for stage in bundle.manifest.stages:
        for wire in stage.inputs:
            backend.write(wire.name, tensors[wire.name])
        backend.run(stage.name)
        for wire in stage.outputs:
            error, relative = _errors(backend.read(wire.name), tensors[wire.name])
            where = f"{stage.name}.{wire.name}"
            if not math.isfinite(error):
                raise _mismatch(f"{where} is not finite")
            parity.stages[where] = max(error, parity.stages.get(where, 0.0))
            is_frame = wire.name == FRAME
            allowed = levels if is_frame else tolerances.stage_abs
            if (error if is_frame else relative) > allowed:
                raise _mismatch(f"{where} is off by {error:.2g}, allowed are {allowed:g}")


def _errors(found: Array, wanted: Array) -> tuple[float, float]:
    """Largest absolute error, and the same as a share of the tensor's largest value, if that is
    above 1: float32 cannot keep features of size 100 to 1e-4."""
    exact = wanted.astype(np.float64)
    error = float(np.abs(found.astype(np.float64) - exact).max())
    if not math.isfinite(error):
        return math.inf, math.inf
    return error, error / max(1.0, float(np.abs(exact).max()))


def _mismatch(what: str) -> ExportError:
    return ExportError(
        f"the exported stages do not compute what the model does: {what}",
        "nothing was kept; report it with the checkpoint's config, or try --precision fp32",
    )

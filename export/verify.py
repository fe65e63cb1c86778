"""Does a bundle compute what the model does? Stage by stage, then the whole chain, on real frames.

The bundle is opened as a runtime opens it. A stage is given the model's own tensors, so that an
error is seen where it is made; the chain is given images alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..runtime.backends import Backend, open_backend
from ..runtime.bundle import FRAME, Bundle, Tolerances
from ..runtime.errors import ExportError
from ..runtime.frames import Image, letterbox, to_channels
from ..runtime.progress import progress
from ..runtime.video import open_source
from .reference import Array, Control, Tensors, TorchChain, as_image
from .stages import Precision

FP32 = Tolerances(stage_abs=1e-4, frame_levels=1)
# Half precision is held to what can be seen; the stages only have to be finite.
FP16 = Tolerances(stage_abs=math.inf, psnr_db=45.0)

# Absolute first (it is the golden sample), then relative with smoothing, whose state goes from
# frame to frame.
CONTROLS = (Control(), Control(relative=1.0, min_cutoff=1.5, beta=10.0))

DRIVING_FRAMES = 4
LOOKED_AT = 150  # frames of a video from which the driving frames are taken


class Frames(NamedTuple):
    """Real frames at the model's size, uint8 (S, S) or (S, S, 3)."""

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

    def fit(image: Image) -> Image:
        return letterbox(to_channels(image, channels), size)[0]

    still, video = None, path
    if path is None:
        from ..runtime.pipeline import SAMPLES

        still, video = SAMPLES / "still.png", SAMPLES / "driving.mp4"
        if not (still.is_file() and video.is_file()):
            raise ExportError(
                "there are no frames to verify the bundle with",
                "give some: --frames VIDEO_OR_FOLDER",
            )
    assert video is not None
    with open_source(video, channels=channels) as source:
        images = [fit(frame.image) for frame in islice(source, LOOKED_AT)]
    if still is not None:
        with open_source(still, channels=channels) as source:
            images.insert(0, fit(next(iter(source)).image))
    chosen = (
        np.linspace(min(1, len(images) - 1), len(images) - 1, DRIVING_FRAMES).round().astype(int)
    )
    return Frames(images[0], tuple(images[i] for i in chosen))


def expected_tensors(chain: TorchChain, frames: Frames) -> list[Tensors]:
    """All tensors of all frames by the model; the first frame is absolute and not smoothed."""
    chain.set_source(frames.source, frames.driving[0])
    controls = [CONTROLS[min(i, len(CONTROLS) - 1)] for i in range(len(frames.driving))]
    pairs = list(zip(frames.driving, controls, strict=True))
    return [chain.animate(*pair) for pair in progress(pairs, label="computing with torch")]


def verify(folder: Path, expected: Sequence[Tensors], precision: Precision) -> Parity:
    """Compare the bundle in ``folder`` with the model's tensors.

    Raises:
        ExportError: they differ by more than the precision's tolerances, or are not finite.
    """
    bundle = Bundle.open(folder)
    backend = open_backend("ort-cpu", bundle)
    tolerances = FP16 if precision == "fp16" else FP32
    parity = Parity()
    try:
        for tensors in progress(expected, label="comparing the stages"):
            _compare_stages(bundle, backend, tensors, tolerances, parity)
        _compare_chain(bundle, backend, expected, parity)
    finally:
        backend.close()
    _judge_frames(parity, tolerances)
    return parity


def _compare_stages(
    bundle: Bundle, backend: Backend, tensors: Tensors, tolerances: Tolerances, parity: Parity
) -> None:
    for stage in bundle.manifest.stages:
        for wire in stage.inputs:
            backend.write(wire.name, tensors[wire.name])
        backend.run(stage.name)
        for wire in stage.outputs:
            found, wanted = backend.read(wire.name), tensors[wire.name]
            error, relative = _errors(found, wanted)
            where = f"{stage.name}.{wire.name}"
            if not math.isfinite(error):
                raise _mismatch(f"{where} is not finite")
            parity.stages[where] = max(error, parity.stages.get(where, 0.0))
            if wire.name != FRAME and relative > tolerances.stage_abs:
                raise _mismatch(
                    f"{where} is off by {error:.2g}, allowed are {tolerances.stage_abs:.0e}"
                )
            levels = tolerances.frame_levels
            if wire.name == FRAME and levels is not None and error > levels:
                raise _mismatch(f"{where} is off by {error:.0f} grey levels")


def _compare_chain(
    bundle: Bundle, backend: Backend, expected: Sequence[Tensors], parity: Parity
) -> None:
    """From images alone: source, reference, then frame after frame."""
    for recurrent in bundle.manifest.recurrent:
        backend.write(recurrent.to, 0)
    backend.write("source_image", expected[0]["source_image"])
    backend.write("driving_frame", expected[0]["driving_frame"])
    for stage in bundle.manifest.stages:
        if stage.when == "once" or stage.name == "keypoints":
            backend.run(stage.name)
    for kind in ("kp_value", "kp_jacobian"):
        backend.copy(f"driving_{kind}", f"reference_{kind}")
    for tensors in expected:
        for name in ("driving_frame", *Control().arrays()):
            backend.write(name, tensors[name])
        backend.run_frame()
        found, wanted = backend.view(FRAME).astype(float), tensors[FRAME].astype(float)
        parity.frame_levels = max(parity.frame_levels, int(np.abs(found - wanted).max()))
        parity.psnr_db = min(parity.psnr_db, psnr(found, wanted))


def _judge_frames(parity: Parity, tolerances: Tolerances) -> None:
    levels, decibels = tolerances.frame_levels, tolerances.psnr_db
    if levels is not None and parity.frame_levels > levels:
        raise _mismatch(
            f"frames are off by {parity.frame_levels} grey levels, allowed are {levels}"
        )
    if decibels is not None and parity.psnr_db < decibels:
        raise _mismatch(
            f"frames agree to {parity.psnr_db:.1f} dB only, {decibels:.0f} dB are needed"
        )


def _errors(found: Array, wanted: Array) -> tuple[float, float]:
    """Largest absolute error; the same relative to the tensor's largest value, if above 1.

    Points, maps and deformations are of size 1, so for them both are the same; float32 cannot keep
    features of size 100 to 1e-4.
    """
    exact = wanted.astype(np.float64)
    error = float(np.abs(found.astype(np.float64) - exact).max())
    if not math.isfinite(error):
        return math.inf, math.inf
    return error, error / max(1.0, float(np.abs(exact).max()))


def psnr(found: Array, wanted: Array) -> float:
    """Peak signal-to-noise ratio of grey levels, dB; infinite for equal frames."""
    error = np.mean(np.square(found.astype(np.float64) - wanted.astype(np.float64)))
    return math.inf if error == 0 else float(10 * np.log10(255**2 / error))


def _mismatch(what: str) -> ExportError:
    return ExportError(
        f"the exported stages do not compute what the model does: {what}",
        "nothing was kept; report it with the checkpoint's config, or try --precision fp32",
    )


def golden(frames: Frames, expected: Sequence[Tensors]) -> dict[str, Image]:
    """The golden sample: what the model makes of the source, motion absolute, not smoothed."""
    return {
        "source": frames.source,
        "driving": frames.driving[0],
        "output": as_image(expected[0][FRAME]),
    }

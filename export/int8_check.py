"""What an int8 bundle loses beside the float one, on clips that it was not calibrated on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..runtime.backends import open_backend
from ..runtime.backends.base import Backend
from ..runtime.bundle.bundle import Bundle
from ..runtime.media.frames import Image
from ..runtime.media.pixels import psnr, to_image, to_planes
from ..runtime.session import Session
from ..runtime.support.errors import InputError
from ..training.data.clip_frames import load_clip
from ..training.data.dataset import Clip, check_splits, find_clips

MOST_PSNR_LOST = 1.0  # dB against the real frames, on average
MOST_MOTION = 0.03  # of the motion's length: how far it is from the float one
MOST_CLIPS, FRAMES = 12, 6  # of each kind; frames of a clip


class ClipPart(NamedTuple):
    """A clip's first frame, which is source and reference, and some of the others, (S, S) or
    (S, S, 3): from the one that is most like it to the one that is least."""

    first: Image
    frames: tuple[Image, ...]

    def play(
        self, bundle: Bundle, backend: Backend,
        on_frame: Callable[[bool], None] = lambda is_chosen: None,
    ) -> Iterator[tuple[Image, Image, NDArray[np.float64]]]:  # fmt: skip
        """Frames as they are made, the real ones, and their motion, relative to the first frame's.
        `on_frame`: gets whether the next frame is one of the clip's, and not its first."""
        session = Session(bundle.manifest, backend)
        passed = session.passed()[0]
        session.set_source(to_planes(self.first))
        session.set_reference(to_planes(self.first))
        on_frame(False)
        session.animate(to_planes(self.first))
        still = session.read(passed).astype(np.float64)
        for real in self.frames:
            on_frame(True)
            made = to_image(session.animate(to_planes(real))).copy()
            on_frame(False)
            yield made, real, session.read(passed) - still


class Clips(NamedTuple):
    """To calibrate on, and to check with."""

    calibrated: list[ClipPart]
    checked: list[ClipPart]


def read_clips(folders: Sequence[Path], bundle: Bundle) -> Clips:
    """Clips of dataset folders, those of the split `test` excepted. Those of `val` are to check
    with; where there are none, those of every third subject.

    Raises:
        InputError: there are too few, or they cannot be read.
    """
    clips = [clip for clip in find_clips(folders).clips if clip.split != "test"]
    check_splits(clips)
    checked = {clip.subject for clip in clips if clip.split == "val"}
    checked = checked or set(sorted({clip.subject for clip in clips})[2::3])
    parts = ([clip for clip in clips if (clip.subject in checked) is of] for of in (False, True))
    calibrate, check = parts
    if not (calibrate and check):
        hint = "give clips of at least three subjects, or clips.csv with the splits train and val"
        raise InputError("there are too few clips to calibrate on some and check with others", hint)
    return Clips(_read(calibrate, bundle), _read(check, bundle))


def _read(clips: Sequence[Clip], bundle: Bundle) -> list[ClipPart]:
    chosen = np.linspace(0, len(clips) - 1, min(MOST_CLIPS, len(clips))).round().astype(int)
    image, parts = bundle.manifest.image, []
    for clip in (clips[i] for i in chosen):
        frames = load_clip(clip, image.size, image.channels).frames
        if len(frames) < 2:
            continue
        first = np.array(frames[0])
        away = [float(np.abs(each.astype(np.int16) - first).mean()) for each in frames[1:]]
        order = 1 + np.argsort(away)
        some = np.linspace(0, len(order) - 1, min(FRAMES, len(order))).round().astype(int)
        parts.append(ClipPart(first, tuple(np.array(frames[i]) for i in order[some])))
    if not parts:
        raise InputError("the clips have one frame each", "give clips that move")
    return parts


class Checked(NamedTuple):
    """psnr_lost: dB against the real frames, on average, below the float bundle's. motion: mean
    length of what is wrong with the motion, as a share of the mean motion. psnr: the lowest of a
    frame against the float one."""

    psnr_lost: float
    motion: float
    psnr: float

    @property
    def cost(self) -> float:
        """As a share of what is allowed."""
        return max(self.psnr_lost / MOST_PSNR_LOST, self.motion / MOST_MOTION)

    @property
    def passes(self) -> bool:
        return self.cost <= 1

    @property
    def said(self) -> str:
        return (
            f"frames lose {self.psnr_lost:.2f} dB (at most {MOST_PSNR_LOST:g}) and the motion is "
            f"{self.motion:.1%} off (at most {MOST_MOTION:.0%}); the least like the float frame "
            f"has {self.psnr:.1f} dB"
        )


class Checks:
    """Compares bundles with a float one."""

    def __init__(self, bundle: Bundle, clips: Sequence[ClipPart], threads: int) -> None:
        self._clips, self._threads = clips, threads
        self._float = list(self._made(bundle))

    def compare(self, bundle: Bundle) -> Checked:
        """How far a bundle is from the float one."""
        lost, wrong, length, lowest = [], 0.0, 0.0, np.inf
        for ours, theirs in zip(self._made(bundle), self._float, strict=True):
            (made, real, motion), (wanted, _, exact) = ours, theirs
            lost.append(min(psnr(wanted, real), 100.0) - min(psnr(made, real), 100.0))
            wrong += float(np.linalg.norm(motion - exact, axis=-1).mean())
            length += float(np.linalg.norm(exact, axis=-1).mean())
            lowest = min(lowest, psnr(made, wanted))
        return Checked(float(np.mean(lost)), wrong / max(length, 1e-9), min(lowest, 120.0))

    def _made(self, bundle: Bundle) -> Iterator[tuple[Image, Image, NDArray[np.float64]]]:
        with closing(open_backend("ort-cpu", bundle, self._threads)) as backend:
            for clip in self._clips:
                yield from clip.play(bundle, backend)

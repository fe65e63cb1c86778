"""Clips and dataset folders whose motion is a formula, and predictors whose faults are known.

A point x of frame t shows tissue that was at x + D_t(x) in frame 0, so a frame is a texture read
there; no interpolation of frames is involved.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sonomime.runtime.media.frames import Letterbox
from sonomime.runtime.sinks.open_sink import open_sink
from sonomime.training.data.clip_frames import ClipFrames
from sonomime.training.data.dataset import Clip, find_clips
from sonomime.training.evaluation.candidate import Candidate
from sonomime.training.evaluation.loop import Case
from sonomime.training.evaluation.metrics import pixel_grid
from sonomime.training.evaluation.truth import Pair, read_pair, read_pairs

Image = NDArray[np.uint8]
SIZE, COUNT, MARGIN = 96, 9, 60
NAMES = ("bladder_neck", "symphysis")
MARKS = np.array([[40.0, 50.0], [62.0, 44.0]])
SUBJECTS = {"s0": "test", "s1": "test", "s2": "test", "s3": "train"}
PAIRS = [("s0", "s1"), ("s1", "s2"), ("s2", "s0"), ("s3", "s3")]


def speckle(size: int = SIZE, seed: int = 0) -> Image:
    """A speckled picture, uint8 (size, size), bright enough to lie in M everywhere."""
    noise = np.random.default_rng(seed).normal(size=(size, size)).astype(np.float32)
    fine = cv2.GaussianBlur(noise, (0, 0), 1.2)
    coarse = cv2.GaussianBlur(noise, (0, 0), 8)
    picture = 110 + 40 * fine / fine.std() + 15 * coarse / coarse.std()
    return np.clip(picture, 20, 255).astype(np.uint8)


def render(seed: int, field: NDArray[Any]) -> Image:
    """The texture of a seed moved by a field (T, S, S, 2), (T, S, S)."""
    size = field.shape[1]
    texture = speckle(size + 2 * MARGIN, seed)
    at = (pixel_grid(size, size) + field + MARGIN).astype(np.float32)
    return np.stack([cv2.remap(texture, one, None, cv2.INTER_CUBIC) for one in at])


def moving_clip(
    count: int = COUNT, size: int = SIZE, step: float = 2.0, seed: int = 0
) -> NDArray[np.uint8]:
    """Speckle that wanders to the right by `step` pixels a frame."""
    moves = np.arange(count) - count // 2
    field = np.multiply.outer(moves, np.full((size, size, 2), (-step, 0.0)))
    return render(seed, field)


def clip_of(frames: Image) -> ClipFrames:
    """A clip of these frames, without labels."""
    count, size = frames.shape[:2]
    clip = Clip("a.mp4", Path("a.mp4"), "a", "lung", "test")
    points, visible = np.zeros((count, 0, 2), np.float32), np.zeros((count, 0), np.bool_)
    box = Letterbox.fit(size, size, size)
    return ClipFrames(clip, frames, np.arange(count), points, visible, visible, box)


def displacement(subject: int) -> NDArray[np.float32]:
    """D (T, S, S, 2) of a subject: a push with a bump, out and half of the way back."""
    grid = pixel_grid(SIZE, SIZE)
    return np.stack([_moved(subject, t, grid) for t in range(COUNT)]).astype(np.float32)


def _moved(subject: int, t: int, at: NDArray[Any]) -> NDArray[Any]:
    amount = np.sin(0.8 * np.pi * t / (COUNT - 1))
    push = np.array([(3.0, 1.0), (-1.0, 4.0), (2.0, -3.0), (1.0, 2.0)][subject])
    bump = np.exp(-((at - (48, 46)) ** 2).sum(-1, keepdims=True) / (2 * 20.0**2))
    return -amount * push * (0.5 + bump)


def marks(subject: int) -> NDArray[np.float64]:
    """Where the landmarks are in every frame, (T, P, 2): x + D_t(x) is the mark, solved for x."""
    found = np.stack([MARKS] * COUNT)
    for _ in range(100):
        found = MARKS - np.stack([_moved(subject, t, found[t]) for t in range(COUNT)])
    return found


def sector() -> NDArray[np.bool_]:
    """A disc that leaves the corners out."""
    return np.asarray(((pixel_grid(SIZE, SIZE) - SIZE / 2) ** 2).sum(-1) < (SIZE / 2 - 4) ** 2)


def write_clip(path: Path, frames: Image) -> None:
    """Frames as FFV1, exact."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_sink(path, (frames.shape[2], frames.shape[1]), 1, 25) as sink:
        for frame in frames:
            sink.write(frame)


def write_phantom(folder: Path) -> Path:
    """A folder as `sonomime phantom` lays it out: four subjects, four pairs."""
    rows = ["clip,subject,group,split,crop"]
    labels = ["video,frame,keypoint,x,y,visible"]
    pairs = ["pair,source,driving,split"]
    (folder / "displacement").mkdir(parents=True)
    for i, (name, split) in enumerate(SUBJECTS.items()):
        field = displacement(i)
        write_clip(folder / "clips" / f"{name}.mkv", render(i, field))
        path = folder / "displacement" / f"{name}.npz"
        np.savez_compressed(path, displacement=field, sector=sector())
        group = "heart" if split == "train" else "pelvic"
        rows.append(f"clips/{name}.mkv,{name},{group},{split},")
        for t, points in enumerate(marks(i)):
            for mark, (x, y) in zip(NAMES, points, strict=True):
                labels.append(f"clips/{name}.mkv,{t},{mark},{x},{y},1")
    for a, b in PAIRS:
        name, i, j = f"{a}__{b}", int(a[1]), int(b[1])
        field = displacement(j)
        write_clip(folder / "truth" / f"{name}.mkv", render(i, field))
        write_clip(folder / "truth" / f"{name}.other.mkv", render(i + 100, field))
        np.savez_compressed(
            folder / "truth" / f"{name}.npz",
            displacement=field,
            sector=sector(),
            keypoints=marks(j).astype(np.float32),
            keypoint_names=np.array(NAMES),
        )
        pairs.append(f"{name},clips/{a}.mkv,clips/{b}.mkv,{SUBJECTS[a]}")
    for table, lines in (("clips", rows), ("keypoints", labels), ("truth/pairs", pairs)):
        (folder / f"{table}.csv").write_text("\n".join(lines) + "\n")
    return folder


def first_pair(folder: Path, size: int = SIZE, channels: int = 1) -> tuple[Pair, Case]:
    """The first pair of a folder."""
    pair = read_pairs(folder, find_clips([folder]).clips, None)[0]
    return pair, read_pair(pair, size, channels)


class Fake:
    """A predictor of frames `picture(source, frame)` that reads the source at `flow(source, frame)`
    pixels from each place; of itself it holds the source."""

    def __init__(
        self,
        picture: Callable[[Image, Image], Any] = lambda source, frame: source,
        flow: Callable[[Image, Image], Any] = lambda source, frame: np.float32(0),
    ) -> None:
        self.picture, self.flow = picture, flow
        self.source = self.reference = self.frame = np.zeros((8, 8), np.uint8)
        self.motion = "relative"
        backend = SimpleNamespace(name="fake")
        self.session = SimpleNamespace(
            can_align=False, can_register=False, landmarks=(), backend=backend
        )

    def set_source(self, image: Image) -> None:
        self.source = image

    def set_reference(self, frame: Image) -> None:
        self.reference = frame

    def animate(self, frame: Image, timestamp: float | None = None) -> Image:
        self.frame = frame
        return np.asarray(self.picture(self.source, frame), np.uint8)

    def read(self, name: str) -> NDArray[np.float32]:
        assert name == "deformation"
        size = len(self.frame)
        pixels = pixel_grid(size, size) + self.flow(self.source, self.frame)
        return ((2 * pixels + 1) / np.float32(size) - 1)[None]


def copy(source: Image, frame: Image) -> Image:
    """Perfect where the target drives, a leak where another does."""
    return frame


def candidate_of(fake: Any, size: int = SIZE, channels: int = 1, layers: Any = None) -> Candidate:
    """The predictor as a Candidate, for absolute and for relative motion."""
    image = SimpleNamespace(size=size, channels=channels)
    fake.session.chain = SimpleNamespace(
        image=image, geometry="half_pixel", layers=layers, control=None
    )
    return Candidate(fake, fake, {"kind": "fake"})

"""Small dataset folders with exact truth: smooth texture moved by a formula, laid out as a phantom.

A point x of frame t shows tissue that was at x + D_t(x) in frame 0, so a frame is the texture read
there; no interpolation of frames is involved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sonomime.runtime.media.sinks import open_sink
from sonomime.training.data.dataset import find_clips
from sonomime.training.evaluation.ground_truth.readers import PairData, read_pair, read_pairs
from sonomime.training.evaluation.metrics import pixel_grid

from .fakes import Fake, Image, speckle

SIZE, COUNT, MARGIN = 96, 9, 60
NAMES = ("bladder_neck", "symphysis")
MARKS = np.array([[40.0, 50.0], [62.0, 44.0]])
SUBJECTS = {"s0": "test", "s1": "test", "s2": "test", "s3": "train"}
PAIRS = [("s0", "s1"), ("s1", "s2"), ("s2", "s0"), ("s3", "s3")]


def displacement(subject: int, count: int = COUNT, size: int = SIZE) -> NDArray[np.float32]:
    """D (T, S, S, 2) of a subject: a push with a bump, out and half of the way back."""
    grid = np.stack([pixel_grid(size, size)] * count)
    return np.stack([_moved(subject, t, count, grid[t]) for t in range(count)]).astype(np.float32)


def _moved(subject: int, t: int, count: int, at: NDArray[Any]) -> NDArray[Any]:
    amount = np.sin(0.8 * np.pi * t / (count - 1))
    push = np.array([(3.0, 1.0), (-1.0, 4.0), (2.0, -3.0), (1.0, 2.0)][subject % 4])
    bump = np.exp(-((at - (48, 46)) ** 2).sum(-1, keepdims=True) / (2 * 20.0**2))
    return -amount * push * (0.5 + bump)


def marks(subject: int, count: int = COUNT) -> NDArray[np.float64]:
    """Where the landmarks are in every frame, (T, P, 2): x + D_t(x) is the mark, solved for x."""
    found = []
    for t in range(count):
        x = MARKS.copy()
        for _ in range(100):
            x = MARKS - _moved(subject, t, count, x)
        found.append(x)
    return np.stack(found)


def render(seed: int, field: NDArray[np.float32]) -> Image:
    """The texture of a seed moved by a field, (T, S, S)."""
    texture = speckle(SIZE + 2 * MARGIN, seed)
    at = (pixel_grid(SIZE, SIZE) + field + MARGIN).astype(np.float32)
    return np.stack([cv2.remap(texture, one, None, cv2.INTER_CUBIC) for one in at])


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
    for i, (name, split) in enumerate(SUBJECTS.items()):
        field = displacement(i)
        write_clip(folder / "clips" / f"{name}.mkv", render(i, field))
        (folder / "displacement").mkdir(exist_ok=True)
        path = folder / "displacement" / f"{name}.npz"
        np.savez_compressed(path, displacement=field, sector=sector())
        rows.append(f"clips/{name}.mkv,{name},pelvic,{split},")
        for t, points in enumerate(marks(i)):
            for mark, (x, y) in zip(NAMES, points, strict=True):
                labels.append(f"clips/{name}.mkv,{t},{mark},{x},{y},1")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    (folder / "keypoints.csv").write_text("\n".join(labels) + "\n")
    order = list(SUBJECTS)
    pairs = ["pair,source,driving,split"]
    for a, b in PAIRS:
        name = f"{a}__{b}"
        i, j = order.index(a), order.index(b)
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
    (folder / "truth" / "pairs.csv").write_text("\n".join(pairs) + "\n")
    return folder


def pair_data(folder: Path, which: int = 0) -> PairData:
    """One pair of a folder, as a grey model of the folder's own size sees it."""
    return read_pair(read_pairs(folder, find_clips([folder]).clips, None)[which], SIZE, 1)


class Knowing(Fake):
    """Gives the truth, and the exact field as its deformation."""

    def __init__(self, data: PairData) -> None:
        super().__init__()
        self.data = data
        self.number = 0

    def animate(self, frame: Image, timestamp: float | None = None) -> Image:
        # Frames of one clip differ, so a frame says which it is.
        self.number = next(t for t, d in enumerate(self.data.driving) if np.array_equal(d, frame))
        return self.data.truth[self.number]

    def read(self, name: str) -> NDArray[np.float32]:
        pixels = pixel_grid(SIZE, SIZE) + self.data.field.displacement[self.number]
        return ((2 * pixels + 1) / SIZE - 1)[None]

"""What a run writes for people: a JSONL log of losses, and picture grids."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..runtime.support.atomic_files import atomic_write_bytes, atomic_write_text
from ..runtime.support.errors import output_errors
from .coordinates import points_to_pixels

Grid = NDArray[np.uint8]


class Logbook:
    """``log.jsonl``, one object a line, and ``pictures/`` in a run's folder; the same for
    TensorBoard in ``tensorboard/``, where that package is installed."""

    def __init__(self, run: Path, step: int, report: Callable[[str], None]) -> None:
        """Remove what a killed process left half written, and lines of steps that are run again:
        those after ``step``."""
        self.path = run / "log.jsonl"
        self.pictures = run / "pictures"
        kept: list[str] = []
        with output_errors(run):
            self.pictures.mkdir(parents=True, exist_ok=True)
            for pattern in (".checkpoint.*.part.pt", ".log.*.part.jsonl", "pictures/.*.part.png"):
                for file in run.glob(pattern):
                    file.unlink()
            if step > 0 and self.path.exists():
                kept = self.path.read_text(encoding="utf-8").splitlines(keepends=True)

        def is_kept(line: str) -> bool:
            try:
                return bool(json.loads(line)["step"] <= step)
            except (ValueError, KeyError):  # cut off by a kill
                return False

        atomic_write_text(self.path, "".join(takewhile(is_kept, kept)))
        self._board = _board(run / "tensorboard", step, report)

    def __enter__(self) -> Logbook:
        return self

    def __exit__(self, *error: object) -> None:
        if self._board is not None:
            self._board.close()

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append one line: the step and rounded values."""
        rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
        with output_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **rounded}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def picture(self, step: int, grid: Grid) -> None:
        """Save a picture grid (H, W, 3) RGB as ``pictures/STEP.png``."""
        _, png = cv2.imencode(".png", grid[..., ::-1])  # imwrite would not notice a full disk
        atomic_write_bytes(self.pictures / f"{step:07d}.png", png.tobytes())
        if self._board is not None:
            self._board.add_image("pairs", grid, step, dataformats="HWC")


def _board(folder: Path, step: int, report: Callable[[str], None]) -> Any:
    """A writer of torch's TensorBoard, or None."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # type: ignore[attr-defined]

        board = SummaryWriter(str(folder), purge_step=step + 1)
    except ModuleNotFoundError:  # not a dependency
        return None
    except Exception as error:  # of another numpy or protobuf; a log is no reason to fail
        report(f"warning: nothing is written for TensorBoard: {error}")
        return None
    report(f"for TensorBoard: {folder}")
    return board


def picture_grid(
    samples: dict[str, NDArray[np.float32]], points: dict[str, NDArray[np.float32]]
) -> Grid:
    """A grid with one row a sample and the names as columns, captions on top; uint8 RGB.

    Args:
        samples: NCHW arrays in [0, 1], ``source`` among them; ``deformation`` is (B, h, w, 2).
        points: ``source`` and ``driving``: (B, K, 2) keypoints, half_pixel, drawn in hues.
    """
    size = samples["source"].shape[-1]
    header = np.full((22, size * len(samples), 3), 255, np.uint8)
    columns = []
    for i, (name, images) in enumerate(samples.items()):
        draw = _mesh if name == "deformation" else _cell
        cells = [draw(image, size) for image in images]
        for cell, places in zip(cells, points.get(name, ()), strict=False):
            for k, (x, y) in enumerate(points_to_pixels(places, size)):
                hue = np.array([[[k * 179 // len(places), 220, 255]]], np.uint8)
                colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
                cv2.circle(cell, (round(float(x)), round(float(y))), 3, colour, -1, cv2.LINE_AA)
        columns.append(np.vstack(cells))
        at, font = (i * size + 4, 16), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(header, name, at, font, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([header, np.hstack(columns)])


def _cell(image: NDArray[np.float32], size: int) -> Grid:
    """(C, h, w) in [0, 1] -> (size, size, 3); the first map where C is neither 1 nor 3."""
    if image.shape[0] != 3:
        image = np.repeat(image[:1], 3, axis=0)
    pixels = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_NEAREST))


def _mesh(deformation: NDArray[np.float32], size: int, lines: int = 17) -> Grid:
    """The deformation (h, w, 2) as a mesh: where each point reads in the source."""
    canvas = np.full((size, size, 3), 255, np.uint8)
    sides = deformation.shape[:2]
    rows, columns = (np.linspace(0, n - 1, lines).round().astype(int) for n in sides)
    for chain in [*deformation[rows], *deformation[:, columns].swapaxes(0, 1)]:
        pixels = points_to_pixels(chain, size).round().astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(canvas, [pixels], False, (40, 90, 160), 1, cv2.LINE_AA)
    return canvas

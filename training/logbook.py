"""What a run writes for people: a JSONL log of losses and picture grids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..runtime.support.atomic_files import atomic_write_bytes, atomic_write_text
from ..runtime.support.errors import output_errors


class Logbook:
    """``log.jsonl``, one object a line, in a run's folder. Resuming drops lines past its step."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "log.jsonl"
        self.pictures = folder / "pictures"
        with output_errors(self.path):
            self.pictures.mkdir(parents=True, exist_ok=True)
            kept = self._lines_until(step)
            atomic_write_text(self.path, "".join(kept))
            self.file = self.path.open("a", encoding="utf-8", buffering=1)

    def _lines_until(self, step: int) -> list[str]:
        if step == 0 or not self.path.exists():
            return []
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError):
                break  # cut short by a kill; what follows belongs to steps that are run again
        return kept

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append one line: the step and rounded values."""
        rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
        with output_errors(self.path):
            self.file.write(json.dumps({"step": step, **rounded}) + "\n")

    def picture(self, step: int, grid: NDArray[np.uint8]) -> Path:
        """Save a picture grid (H, W, 3) RGB as ``pictures/STEP.png``."""
        path = self.pictures / f"{step:07d}.png"
        # Not imwrite, which passes over a full disk.
        _, png = cv2.imencode(".png", grid[..., ::-1])
        atomic_write_bytes(path, png.tobytes())
        return path

    def close(self) -> None:
        with output_errors(self.path):
            self.file.close()

    def __enter__(self) -> Logbook:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def picture_grid(
    samples: dict[str, NDArray[np.float32]], points: dict[str, NDArray[np.float32]]
) -> NDArray[np.uint8]:
    """A grid with one row a sample and the names as columns, captions on top; uint8 RGB.

    Args:
        samples: by name NCHW arrays in [0, 1], ``source`` among them; ``deformation`` is
            (B, h, w, 2).
        points: ``source`` and ``driving``: (B, K, 2) keypoints in [-1, 1], half_pixel.
    """
    size = samples["source"].shape[-1]
    rows = []
    for b in range(samples["source"].shape[0]):
        cells = []
        for column in samples:
            if column == "deformation":
                cells.append(draw_deformation(samples[column][b], size))
                continue
            cell = to_rgb(samples[column][b], size)
            if column in points:
                draw_points(cell, points[column][b])
            cells.append(cell)
        rows.append(np.hstack(cells))
    header = np.full((22, size * len(samples), 3), 255, np.uint8)
    for i, column in enumerate(samples):
        cv2.putText(
            header,
            column,
            (i * size + 4, 16),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.5,
            (0, 0, 0),
            1,
            cv2.LINE_AA,
        )
    return np.vstack([header, *rows])


def to_rgb(image: NDArray[np.float32], size: int) -> NDArray[np.uint8]:
    """(C, h, w) in [0, 1] -> (size, size, 3) uint8; of several maps that are no RGB the first."""
    if image.shape[0] not in (1, 3):
        image = image[:1]
    pixels = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    return np.ascontiguousarray(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_NEAREST))


def draw_points(image: NDArray[np.uint8], points: NDArray[np.float32]) -> None:
    """Draw (K, 2) points as numbered dots, in place."""
    size = image.shape[0]
    for k, (x, y) in enumerate(((points + 1) * size - 1) / 2):
        hue = np.array([[[k * 179 // max(1, len(points)), 220, 255]]], np.uint8)
        colour = tuple(int(c) for c in cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0])
        cv2.circle(image, (round(float(x)), round(float(y))), 3, colour, -1, cv2.LINE_AA)


def draw_deformation(
    deformation: NDArray[np.float32], size: int, lines: int = 17
) -> NDArray[np.uint8]:
    """The deformation (h, w, 2) as a mesh: where each point reads in the source."""
    canvas = np.full((size, size, 3), 255, np.uint8)
    rows, columns = (
        np.linspace(0, n - 1, lines).round().astype(int) for n in deformation.shape[:2]
    )
    for chain in [deformation[i] for i in rows] + [deformation[:, j] for j in columns]:
        pixels = (((chain + 1) * size - 1) / 2).round().astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(canvas, [pixels], False, (40, 90, 160), 1, cv2.LINE_AA)
    return canvas

"""What a run writes for people: logs of losses, of the probe and of warnings, and picture grids."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..runtime.support.atomic_files import atomic_write_bytes, atomic_write_text
from ..runtime.support.errors import output_errors
from .coordinates import points_to_pixels
from .watch import Warned, Watch

Grid = NDArray[np.uint8]

CAPTION = 22  # pixels above a picture's cells

#: What a killed process may leave.
PARTS = (".checkpoint.*.part.pt", ".*.part.json*", ".report.*.part.html", "pictures/.*.part.png")


class Logbook:
    """A run's folder: ``run.json``; ``log.jsonl``, ``probe.jsonl`` and ``warnings.jsonl`` with one
    object a line, each with its ``step``; ``pictures/``; and the log and pictures for TensorBoard
    in ``tensorboard/``, where that package is installed."""

    def __init__(self, run: Path, step: int, watch: Watch, report: Callable[[str], None]) -> None:
        """Remove what a killed process left half written, damaged lines, and lines of steps that
        are run again: those after ``step``.

        Args:
            watch: sees every line; it knows what the lines before ``step`` have led to.
            report: takes the warnings.
        """
        self.run, self.step, self.watch, self.report = run, step, watch, report
        self.pictures = run / "pictures"
        with output_errors(run):
            self.pictures.mkdir(parents=True, exist_ok=True)
            for pattern in PARTS:
                for file in run.glob(pattern):
                    file.unlink()
        kept: dict[str, list[Any]] = {}
        for name in ("log", "probe", "warnings"):
            path = run / f"{name}.jsonl"
            with output_errors(path):
                there = step > 0 and path.exists()
                text = path.read_bytes().decode(errors="replace") if there else ""
            lines = [line for line in text.splitlines() if _step_of(line) <= step]
            atomic_write_text(path, "".join(f"{line}\n" for line in lines))
            kept[name] = [json.loads(line) for line in lines]
        for name, take in (("log", watch.logged), ("probe", watch.probed)):
            for line in kept[name]:
                take(line)
        # Not what the replay found: another length of the run has other thresholds.
        watch.said = {str(each.get("name")) for each in kept["warnings"]}
        self._board = _board(run / "tensorboard", step, report)

    def __enter__(self) -> Logbook:
        return self

    def __exit__(self, *error: object) -> None:
        self._on_board(lambda board: board.close())

    def begin(self, facts: dict[str, Any]) -> None:
        """Write run.json: what is trained, and when it was begun and resumed."""
        path, starts = self.run / "run.json", []
        with suppress(OSError, ValueError, KeyError, TypeError):  # there is none
            known = json.loads(path.read_text(encoding="utf-8"))["starts"]
            starts = [each for each in known if each["step"] < self.step]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        starts.append({"step": self.step, "time": now})
        atomic_write_text(path, json.dumps({**facts, "starts": starts}, indent=1) + "\n")

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append a line to log.jsonl: the step and rounded values."""
        rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
        self._append("log", {"step": step, **rounded})

        def scalars(board: Any) -> None:
            for name, value in values.items():
                board.add_scalar(name, value, step)

        self._on_board(scalars)
        self._warn(step, self.watch.logged({"step": step, **rounded}))

    def look(self, step: int, picture: Grid, record: dict[str, Any]) -> None:
        """Save a picture grid (H, W, 3) RGB as ``pictures/STEP.png``, and append what was measured
        to probe.jsonl."""
        _, png = cv2.imencode(".png", picture[..., ::-1])  # imwrite would not notice a full disk
        atomic_write_bytes(self.pictures / f"{step:07d}.png", png.tobytes())
        self._on_board(lambda board: board.add_image("pairs", picture, step, dataformats="HWC"))
        self._append("probe", {"step": step, **record})
        self._warn(step, self.watch.probed({"step": step, **record}))

    def _on_board(self, write: Callable[[Any], object]) -> None:
        """Write for TensorBoard, as long as that works: it is no reason to end a run."""
        try:
            if self._board is not None:
                write(self._board)
        except Exception as error:  # a full disk, or of another numpy or Pillow
            self._board = None
            self.report(f"warning: nothing more is written for TensorBoard: {error}")

    def _append(self, name: str, values: dict[str, Any]) -> None:
        path = self.run / f"{name}.jsonl"
        with output_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def _warn(self, step: int, found: Sequence[Warned]) -> None:
        for each in found:
            self._append("warnings", {"step": step, **each._asdict()})
            self.report(f"warning: step {step}: {each.what}. {each.advice}")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # cut off by a kill
        return math.inf


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
    samples: dict[str, NDArray[np.float32]],
    points: dict[str, NDArray[np.float32]],
    geometry: str = "half_pixel",
) -> Grid:
    """A grid with one row a sample and the names as columns, captions on top; uint8 RGB.

    Args:
        samples: NCHW arrays in [0, 1], ``source`` among them; ``deformation`` is (B, h, w, 2).
        points: ``source`` and ``driving``: (B, K, 2) keypoints, drawn in hues.
        geometry: of deformations and points (models/geometry.py).
    """
    size = samples["source"].shape[-1]
    header = np.full((CAPTION, size * len(samples), 3), 255, np.uint8)
    columns = []
    for i, (name, images) in enumerate(samples.items()):
        mesh = name == "deformation"
        cells = [_mesh(each, size, geometry) if mesh else _cell(each, size) for each in images]
        for cell, places in zip(cells, points.get(name, ()), strict=False):
            for k, (x, y) in enumerate(points_to_pixels(places, size, geometry)):
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


def _mesh(deformation: NDArray[np.float32], size: int, geometry: str, lines: int = 17) -> Grid:
    """The deformation (h, w, 2) as a mesh: where each point reads in the source."""
    # What sampling takes -1 and +1 for does not follow from what the points mean.
    sampled = "fomm_aligned" if geometry == "fomm_aligned" else "half_pixel"
    canvas = np.full((size, size, 3), 255, np.uint8)
    sides = deformation.shape[:2]
    rows, columns = (np.linspace(0, n - 1, lines).round().astype(int) for n in sides)
    for chain in [*deformation[rows], *deformation[:, columns].swapaxes(0, 1)]:
        pixels = points_to_pixels(chain, size, sampled).round().astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(canvas, [pixels], False, (40, 90, 160), 1, cv2.LINE_AA)
    return canvas

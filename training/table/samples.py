"""A few frames of each evaluation, kept for the figures: source, driving frame, truth, prediction.

They lie beside the results, so that a figure can be drawn where the checkpoints are gone.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ...runtime.support.atomic_files import atomic_write_bytes
from ...runtime.support.errors import InputError
from ..evaluation.loop import Picture, spread
from ..evaluation.strips import Sketch

MOST = 8
"""Cases that are kept; a figure shows some of them."""


@dataclass(frozen=True)
class Samples:
    """N frames of cases, (N, S, S) or (N, S, S, 3)."""

    names: NDArray[np.str_]  # of the case, a blank, the frame's number
    source: NDArray[np.uint8]
    driving: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]


def samples_file(folder: Path, evaluation: str) -> Path:
    """Where the samples of a cell's evaluation are."""
    return folder / f"{evaluation}.npz"


class Album:
    """Takes the sketches of an evaluation as they come, and keeps frames of some."""

    def __init__(self) -> None:
        self._cases: list[list[tuple[str, Picture, Picture, Picture, Picture]]] = []

    def add(self, name: str, sketch: Sketch) -> None:
        """Take a case: of its frames one after a quarter of the clip (in the middle is the source
        of a reconstruction), and the last."""
        own = sketch.own
        chosen = {frame.number: frame for frame in (*own[len(own) // 4 :][:1], *own[-1:])}
        rows = []
        for frame in chosen.values():
            truth, title = frame.truth, f"{name} {frame.number}"
            truth = frame.driving if truth is None else truth
            if (made := frame.prediction) is not None:
                rows.append((title, sketch.source, frame.driving, truth, made))
        if rows:  # detection makes no pictures
            self._cases.append(rows)

    def save(self, folder: Path, evaluation: str) -> None:
        """Write the samples of an evaluation."""
        rows = [row for case in spread(self._cases, MOST) for row in case]
        names = Samples.__dataclass_fields__
        columns = list(zip(*rows, strict=True)) or [()] * len(names)
        arrays = {name: np.array(column) for name, column in zip(names, columns, strict=True)}
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        atomic_write_bytes(samples_file(folder, evaluation), stream.getvalue())


def read_samples(folder: Path, evaluation: str) -> Samples:
    """What an album saved.

    Raises:
        InputError: it cannot be read.
    """
    path = samples_file(folder, evaluation)
    try:
        with np.load(path, allow_pickle=False) as file:
            return Samples(*(file[name] for name in Samples.__dataclass_fields__))
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"{path}: not a table's samples: {error}", f"remove {path}") from error

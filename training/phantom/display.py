"""From the envelope to the picture: log compression, grey curve, scan conversion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray

from .arrays import Raster
from .beam import Beam
from .probe import SIZE
from .ranges import Range


@dataclass(frozen=True)
class Display:
    """The scanner's settings. Levels are relative to unshadowed tissue of 0 dB."""

    dynamic_range: Annotated[float, Range(10, 150)]  # of the log compression, dB
    white: Annotated[float, Range(-60, 100)]  # level that is shown as white, dB
    gamma: Annotated[float, Range(0.1, 10)]  # of the grey curve; above 1 darkens the greys
    noise: Annotated[float, Range(0, 200)]  # of the receiver, dB below tissue at the face
    gain: Annotated[float, Range(-1, 2)]  # with depth, dB per mm
    # Weights of this frame, the one before and the one before that; they sum to 1.
    persistence: Annotated[tuple[float, float, float], Range(0, 1)]
    frame_rate: Annotated[float, Range(1, 1000)]  # frames per second

    def grey(self, envelope: Raster) -> Raster:
        """Envelope -> grey in [0, 1]."""
        level = 20 * np.log10(np.maximum(envelope, 1e-6))
        shown = np.clip(1 + (level - self.white) / self.dynamic_range, 0, 1)
        return np.asarray(shown**self.gamma, np.float32)


class ScanConverter:
    """Polar to Cartesian at twice the picture's size, then averaged: uint8 (SIZE, SIZE)."""

    def __init__(self, beam: Beam) -> None:
        probe, line = beam.probe, (np.arange(2 * SIZE) - 0.5) / 2
        mm = probe.to_mm(np.stack(np.meshgrid(line, line), axis=-1))
        depth, angle = probe.to_polar(mm)
        self._line = (angle / beam.pitch + (beam.lines - 1) / 2).astype(np.float32)
        self._row = (depth / beam.step).astype(np.float32)
        self._seen = probe.inside(mm)

    def __call__(self, grey: Raster) -> NDArray[np.uint8]:
        """Grey in [0, 1] (rows, lines) -> the picture."""
        fine = cv2.remap(grey, self._line, self._row, cv2.INTER_LINEAR)
        picture = cv2.resize(fine * self._seen, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        return np.asarray(np.clip(np.rint(picture * 255), 0, 255), np.uint8)

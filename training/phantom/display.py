"""From the envelope to the picture: log compression, grey curve, scan conversion."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .beam import Beam
from .limits import Limits, beyond
from .probe import SIZE

FloatArray = NDArray[np.float32]

LIMITS: Limits = {
    "dynamic_range": (10, 150), "white": (-60, 100), "gamma": (0.1, 10), "noise": (0, 200),
    "gain": (-1, 2), "persistence": (0, 1), "frame_rate": (1, 1000),
}  # fmt: skip


@dataclass(frozen=True)
class Display:
    """The scanner's settings.

    Attributes:
        dynamic_range: of the log compression, dB.
        white: level shown as white, dB above unshadowed tissue of 0 dB.
        gamma: exponent of the grey curve; above 1 darkens the greys.
        noise: of the receiver, dB below tissue at the face.
        gain: of depth, dB per mm.
        persistence: weights of this frame, the one before and the one before that; they sum to 1.
        frame_rate: frames per second.
    """

    dynamic_range: float
    white: float
    gamma: float
    noise: float
    gain: float
    persistence: tuple[float, float, float]
    frame_rate: float

    def impossible(self) -> str | None:
        """What is wrong with the settings; None where a scanner can have them."""
        if abs(sum(self.persistence) - 1) > 1e-6:
            return f"display.persistence sums to {sum(self.persistence):g}: it must sum to 1"
        return beyond(self, LIMITS, "display")

    def grey(self, envelope: FloatArray) -> FloatArray:
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

    def __call__(self, grey: FloatArray) -> NDArray[np.uint8]:
        """Grey in [0, 1] (rows, lines) -> the picture."""
        fine = cv2.remap(grey, self._line, self._row, cv2.INTER_LINEAR)
        picture = cv2.resize(fine * self._seen, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        return np.asarray(np.clip(np.rint(picture * 255), 0, 255), np.uint8)

"""Stand-in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .frames import Crop


@dataclass(frozen=True)
class Region:
    box: Crop
    shape: str

    @classmethod
    def of_box(cls, box: Crop, size: tuple[int, int]) -> Region:
        return cls(box, "rectangle")

    def mask(self, shape: Any) -> Any:
        m = np.zeros(shape, bool)
        x, y, w, h = self.box
        m[y : y + h, x : x + w] = True
        return m


def find_region(frames: Any) -> Region:
    h, w = frames[0].shape[:2]
    return Region(Crop(0, 0, w, h), "rectangle")

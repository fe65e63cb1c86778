"""What a stream shows: frames of one size, marked, with a word where they are not live."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np

from ..media.frames import Image, to_channels
from ..media.mark import draw_mark

State: TypeAlias = Literal["warming up", "live", "held", "no signal", "doubtful"]
STATES: tuple[State, ...] = get_args(State)


class Screen:
    """Frames of `size`, (width, height), and `channels`, with the synthetic mark and words for the
    state unless `mark` is False."""

    def __init__(self, size: tuple[int, int], channels: int, mark: bool) -> None:
        self.size, self.channels, self._mark = size, channels, mark
        width, height = size
        self._black = np.zeros((height, width, 3)[: 2 if channels == 1 else 3], np.uint8)

    def show(self, image: Image | None, state: State) -> Image:
        """A picture, in the middle if it is smaller, or a black one; a new array."""
        made = self._black.copy()
        if image is not None:
            image = to_channels(image, self.channels)
            (height, width), (high, wide) = image.shape[:2], made.shape[:2]
            y, x = (high - height) // 2, (wide - width) // 2
            made[y : y + height, x : x + width] = image
        if not self._mark:
            return made
        if state != "live":
            write_state(made, state)
        return draw_mark(made)


def write_state(image: Image, state: State) -> None:
    """Write the state into the upper left corner: white on black, letters that grow with the
    picture. Where there is no room for it, the corner is a white square."""
    import cv2

    text, font = state.upper(), cv2.FONT_HERSHEY_SIMPLEX
    height, width = image.shape[:2]
    scale = max(0.4, min(width, height) / 500)
    thick = max(1, round(1.6 * scale))
    (wide, high), below = cv2.getTextSize(text, font, scale, thick)
    edge = round(8 * scale)
    across, down = wide + 2 * edge, high + below + 2 * edge
    if across > width or down > height:
        image[: max(1, height // 6), : max(1, width // 6)] = 255
        return
    image[:down, :across] = 0
    white = (255, 255, 255)
    cv2.putText(image, text, (edge, edge + high), font, scale, white, thick, cv2.LINE_AA)

"""Source, driving and synthesized picture beside each other, with captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .frames import Image, resize, to_channels

_HEIGHTS = 192, 720  # below, captions cannot be read; above, three panels exceed what players like
_GAP = 4
_LEVEL = 220  # of the captions


class Panels:
    """Composes pictures of fixed sizes into one, each under its caption.

    Args:
        captions: one per panel.
        sizes: (width, height) of each panel's pictures. All are shown at the last one's height,
            within 192 .. 720 pixels, aspect ratios kept.
        channels: 1 or 3.

    Attributes:
        size: (width, height) of the composed picture.
    """

    def __init__(
        self, captions: Sequence[str], sizes: Sequence[tuple[int, int]], channels: int
    ) -> None:
        low, high = _HEIGHTS
        height = min(high, max(low, sizes[-1][1]))
        # A very wide picture keeps to a square's width, with black above and below.
        widths = [min(2 * height, max(height // 4, round(height * w / h))) for w, h in sizes]
        strip = max(20, height // 14)
        self.size = sum(widths) + _GAP * (len(widths) - 1), height + strip
        shape = (self.size[1], self.size[0]) if channels == 1 else (*self.size[::-1], 3)
        self._canvas = np.zeros(shape, np.uint8)
        self._channels = channels
        self._panels: list[Image] = []
        x = 0
        for caption, width in zip(captions, widths, strict=True):
            column = self._canvas[:, x : x + width]
            _write(caption, column[:strip])
            self._panels.append(column[strip:])
            x += width + _GAP

    def compose(self, pictures: Sequence[Image | None]) -> Image:
        """The composed picture, a buffer that the next call changes, of one uint8 picture (H, W) or
        (H, W, 3) per panel; None leaves the panel as it was.

        Raises:
            InputError: not an image.
        """
        for picture, panel in zip(pictures, self._panels, strict=True):
            if picture is not None:
                panel[...] = 0  # beside a picture of another aspect ratio
                image = to_channels(picture, self._channels)
                (height, width), (h, w) = panel.shape[:2], image.shape[:2]
                scale = min(width / w, height / h)
                w, h = max(1, round(w * scale)), max(1, round(h * scale))
                left, top = (width - w) // 2, (height - h) // 2
                panel[top : top + h, left : left + w] = resize(image, w, h)
        return self._canvas


def _write(caption: str, strip: Image) -> None:
    import cv2

    height, width = strip.shape[:2]
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, height / 36
    (w, h), below = cv2.getTextSize(caption, font, scale, 1)
    if w > width - 6:
        scale *= (width - 6) / w
    written = np.zeros((height, width), np.uint8)
    place = (3, (height + h - below // 2) // 2)
    cv2.putText(written, caption, place, font, scale, (_LEVEL,), 1, cv2.LINE_AA)
    strip[...] = written if strip.ndim == 2 else written[..., None]

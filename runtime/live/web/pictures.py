"""A stream's frames as bytes for viewers: made once a frame, however many there are."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import Callable
from typing import Any

from ...media.frames import Image
from ..showing import Shown

QUALITY = 90  # of a JPEG
OLD = 1.0  # seconds: a stream that runs shows a frame more often, if need be the last one again


def jpeg(image: Image) -> bytes:
    """(H, W) or (H, W, 3) RGB as a JPEG file."""
    import cv2

    bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1])


def message(shown: Shown, raw: bool, driving: bool) -> bytes:
    """A message of the WebSocket: the length of a JSON text (4 bytes, little-endian), the text,
    the frame, and the driving frame if it is wanted. A frame is a JPEG, or raw pixels."""
    parts = [_encoded(shown.image, raw)]
    if driving:
        parts.append(b"" if shown.driving is None else _encoded(shown.driving, raw))
    head = {
        "number": shown.number,
        "state": shown.state,
        "why": shown.why,
        "latency_ms": None if shown.latency is None else round(1000 * shown.latency, 2),
        "made_at": shown.made_at,
        "confidence": None if shown.quality is None else round(shown.quality.confidence, 4),
        "shape": list(shown.image.shape),
        "parts": [len(part) for part in parts],
    }
    text = json.dumps(head).encode()
    return b"".join([struct.pack("<I", len(text)), text, *parts])


def _encoded(image: Image, raw: bool) -> bytes:
    return image.tobytes() if raw else jpeg(image)


class Newest:
    """The newest frame, waited for by viewers of an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._shown: Shown | None = None
        self._at = 0.0  # when it came
        self._come = asyncio.Event()
        self._made: dict[Any, asyncio.Future[bytes]] = {}  # of the newest frame, by form

    def put(self, shown: Shown) -> None:
        """From any thread; never waits."""
        self._loop.call_soon_threadsafe(self._take, shown)

    def _take(self, shown: Shown) -> None:
        self._shown, self._at = shown, time.monotonic()
        self._made = {}
        self._come.set()
        self._come = asyncio.Event()

    async def after(self, last: Shown | None) -> Shown:
        """The newest frame that is not `last`, and not of a stream that has ended."""
        while self._shown is None or self._shown is last or time.monotonic() - self._at > OLD:
            await self._come.wait()
        return self._shown

    async def bytes_of(self, shown: Shown, form: Any, make: Callable[[], bytes]) -> bytes:
        """What `make` makes of a frame in this form, in another thread, once for all viewers."""
        if shown is not self._shown:
            return await asyncio.to_thread(make)
        if form not in self._made:
            self._made[form] = asyncio.ensure_future(asyncio.to_thread(make))
        return await asyncio.shield(self._made[form])

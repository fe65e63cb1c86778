"""Frames of a camera or frame grabber, by OpenCV."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from .feed import Arrival, Feed
from .retry import Retry


def camera_frames(feed: Feed, number: int) -> Iterator[Arrival]:
    """RGB frames of the camera with this number; if it goes, it is waited for."""
    import cv2

    retry = Retry()
    while not feed.stopped:
        # Closed in any case: a camera that stays open cannot be opened again.
        camera = cv2.VideoCapture(number)
        try:
            # The newest frame, not one that has waited in the driver.
            camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            feed.problem = f"camera {number} cannot be opened"
            while not feed.stopped:
                got, image = camera.read()
                now = time.perf_counter()
                if not got:
                    break
                feed.problem = ""
                retry.worked()
                colours = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                yield Arrival(np.asarray(colours, np.uint8), now, now)
        finally:
            camera.release()
        feed.problem = feed.problem or f"camera {number} has gone"
        feed.sleep(retry.pause())

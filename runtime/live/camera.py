"""Frames of a camera or frame grabber, by OpenCV."""

from __future__ import annotations

import numpy as np

from .feed import Feed
from .retry import Retry


def fetch_camera(feed: Feed, number: int) -> None:
    """RGB frames of the camera with this number; if it goes, it is waited for."""
    import cv2

    retry = Retry()
    while not feed.stopped:
        # Closed in any case: a camera that stays open cannot be opened again.
        camera = cv2.VideoCapture(number)
        try:
            # The newest frame, not one that has waited in the driver.
            camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            if not camera.isOpened():
                feed.problem = f"camera {number} cannot be opened"
            while not feed.stopped:
                got, image = camera.read()
                if not got:
                    break
                retry.worked()
                colours = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                feed.arrived(np.asarray(colours, np.uint8))
        finally:
            camera.release()
        feed.problem = feed.problem or f"camera {number} gives no more frames"
        feed.sleep(retry.pause())

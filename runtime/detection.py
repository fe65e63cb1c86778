"""What a model finds in a picture by itself: keypoints or landmarks. Nothing else changes by it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .alignment import Landmark, points_to_pixels
from .bundle.manifest import DRIVING, DRIVING_FRAME, LANDMARK_IMAGE, KeypointControl
from .frame_io import FrameIO
from .session import Session
from .support.errors import ConfigError


def detect_keypoints(session: Session, io: FrameIO, frame: Any) -> NDArray[np.float32]:
    """(K, 2), in [-1, 1] of the letterboxed square.

    Raises:
        ConfigError: the model has no keypoints.
        InputError: not an image.
        BackendError: a stage failed.
    """
    if not isinstance(session.chain.control, KeypointControl):
        raise ConfigError("this model has no keypoints to detect")
    io.give(frame, DRIVING_FRAME)
    session.observe()
    points: NDArray[np.float32] = session.read(DRIVING + "kp_value")[0]
    return points


def detect_landmarks(session: Session, io: FrameIO, image: Any) -> list[Landmark]:
    """In pixels of the image.

    Raises:
        ConfigError: the model has no detector of landmarks.
        InputError: not an image.
        BackendError: the stage failed.
    """
    if not session.landmarks:
        raise ConfigError("this model finds no landmarks", "place them by hand: align()")
    box = io.give(image, LANDMARK_IMAGE)
    found = session.find_landmarks()
    places = points_to_pixels(found[:, :2], box)
    rows = np.column_stack([places, found[:, 2]]).tolist()
    return [Landmark(name, *row) for name, row in zip(session.landmarks, rows, strict=True)]

"""The pictures that everything is timed with: the samples that come with the package."""

from __future__ import annotations

from itertools import islice

from ..runtime.media.frames import Image
from ..runtime.readers.open_source import open_source
from ..runtime.readers.stills import read_image
from ..runtime.still import SAMPLES

PAIRS = (("still.png", "driving.mp4"), ("lung_still.png", "lung.mp4"))
MOST_INPUTS = 60  # frames kept in memory and repeated


def inputs(channels: int, pair: int = 0) -> tuple[Image, list[Image]]:
    """Source and driving frames of one of PAIRS, which are taken in turns beyond the last."""
    still, clip = PAIRS[pair % len(PAIRS)]
    source = open_source(SAMPLES / clip, channels=channels)
    frames = [frame.image for frame in islice(source, MOST_INPUTS)]
    return read_image(SAMPLES / still), frames

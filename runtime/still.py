"""The picture that is animated: how it is read, and the size of what is made of it."""

from __future__ import annotations

import logging
from pathlib import Path

from .bundle.manifest import Chain
from .compose import MOST_SIDE, Size, fitted, target_size
from .media.frames import Image, Letterbox, has_colour
from .readers.open_source import open_source
from .readers.reading import Reading
from .readers.source import FrameSource
from .reference import nth_frame
from .support.errors import ConfigError

log = logging.getLogger("sonomime")

SAMPLES = Path(__file__).parent / "samples"
"""Pictures and clips that come with the package."""


def read_still(
    path: Path, how: Reading, chain: Chain, frame: int = 0, keep_colour: bool = False
) -> tuple[FrameSource, Image]:
    """A picture or one frame of a clip, in colour if it has colours that the bundle can keep.

    Raises:
        InputError: it cannot be read, or has no such frame.
        ConfigError: `keep_colour`, and its colours would be lost.
    """
    channels, composes = chain.image.channels, chain.layers is not None

    def read(channels: int) -> tuple[FrameSource, Image]:
        source = open_source(path, how, channels, announce=False)
        return source, nth_frame(source, frame)

    if channels == 1 and (composes or keep_colour):
        source, still = read(3)
        if has_colour(still):
            if composes:
                return source, still
            raise ConfigError(
                f"this bundle cannot keep the colours of {path}: it has no layers",
                "leave --keep-colour out for a grey result, or take another bundle",
            )
    return read(channels)


def made_size(box: Letterbox, size: Size, chain: Chain) -> tuple[int, int]:
    """(width, height) of the synthesized picture of a source in this box.

    Raises:
        ConfigError: a size that the bundle cannot make, or of another shape than the source.
    """
    own, composes = (box.width, box.height), chain.layers is not None
    if not composes and isinstance(size, tuple):
        what = f"this bundle cannot compose a picture of {size[0]}x{size[1]}: it has no layers"
        raise ConfigError(what, "leave --size out, or take source or model")
    if not composes and size == "source":
        return own
    if size == "source" and max(own) > MOST_SIDE:
        size = fitted(*own, MOST_SIDE, MOST_SIDE)
        log.warning(
            "the source of %dx%d is animated at %dx%d: at most %d pixels a side are composed",
            *own, *size, MOST_SIDE,
        )  # fmt: skip
    return target_size(size, box)


def spacing_at(source: FrameSource, size: tuple[int, int]) -> tuple[float, float] | None:
    """Millimetres from pixel to pixel of a picture of `size`, if the source says its own."""
    if source.facts.spacing is None:
        return None
    (x, y), (width, height) = source.facts.spacing, source.size
    return x * width / size[0], y * height / size[1]

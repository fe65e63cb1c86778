"""Images as arrays: convert, crop, resize, and letterbox into a model's square.

Convention: images are uint8, (H, W) grey or (H, W, 3) RGB, rows from the top. Pixel coordinates are
(x, y) with (0, 0) at the centre of the top left pixel.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from ..support.errors import ConfigError, InputError

Image: TypeAlias = npt.NDArray[np.uint8]

GREY_SPREAD = 8
"""A pixel whose channels differ by no more is grey: lossy files add such noise."""
COLOUR_SPREAD = 48
"""A pixel whose channels differ by more has a clear colour."""
CONTRAST = 8
"""A picture with fewer grey levels between its darkest and brightest pixel shows nothing."""


class Crop(NamedTuple):
    """A rectangle in pixels: its top left corner, width and height."""

    x: int
    y: int
    w: int
    h: int


AskedCrop: TypeAlias = Crop | Literal["auto"] | None
"""A rectangle; the ultrasound region that is found; None: what the file names, or all."""


def png_bytes(image: Image, metadata: Mapping[str, str] | None = None) -> bytes:
    """A PNG file of a uint8 image, (H, W) or (H, W, 3) RGB, with texts as iTXt chunks (UTF-8).

    Raises:
        InputError: not an image.
    """
    from PIL import Image as PillowImage
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    for key, text in (metadata or {}).items():
        texts.add_itxt(key.capitalize(), text)
    file = io.BytesIO()
    # Light compression: Pillow's default takes six times as long, for 15 % of the size.
    light = {"compress_level": 1, "compress_type": zlib.Z_RLE}
    PillowImage.fromarray(check_image(image)).save(file, "PNG", pnginfo=texts, **light)
    return file.getvalue()


def check_image(image: Image) -> Image:
    """The same array, if it is an image in this package's sense.

    Raises:
        InputError: not uint8, or neither (H, W) nor (H, W, 3), or empty.
    """
    array = isinstance(image, np.ndarray)
    shaped = array and image.ndim in (2, 3) and image.shape[2:] in ((), (3,)) and image.size > 0
    if shaped and image.dtype == np.uint8:
        return image
    found = f"{image.dtype} {image.shape}" if array else type(image).__name__
    raise InputError(
        f"an image has to be a uint8 array (H, W) or (H, W, 3), not {found}",
        "scale it to 0..255 and convert it with .astype(numpy.uint8); the channels are RGB, last",
    )


def to_channels(image: Image, channels: int) -> Image:
    """An image with 1 or 3 channels: (H, W) or (H, W, 3).

    Colour becomes grey by the luma weights of ITU-R BT.601; a colour image whose channels are equal
    keeps its exact levels. Grey becomes colour by repetition.

    Raises:
        InputError: not an image, or a number of channels other than 1 and 3.
    """
    check_image(image)
    if channels not in (1, 3):
        raise InputError(f"an image has 1 or 3 channels, not {channels}")
    if channels == (1 if image.ndim == 2 else 3):
        return image
    import cv2

    conversion = cv2.COLOR_RGB2GRAY if channels == 1 else cv2.COLOR_GRAY2RGB
    return np.asarray(cv2.cvtColor(image, conversion), dtype=np.uint8)


def on_black(values: NDArray[Any], notes: list[str]) -> NDArray[Any]:
    """(H, W, 2 or 4), the last channel transparency, on black; grey where it has one colour
    channel. A picture that is stored in the transparency is recognised."""
    colours, alpha = values[..., :-1], values[..., -1]
    most = np.iinfo(values.dtype).max
    if not np.ptp(colours, axis=2).any():
        colours = colours[..., 0]
    if alpha.min() == most:
        return colours
    if not alpha.any():
        notes.append("all of it is transparent: its transparency is left out")
        return colours
    if (colours == colours[0, 0]).all():
        notes.append("its picture is in the transparency, all else is of one colour")
        return alpha
    notes.append("transparent places are black")
    return over_black(values)


def over_black(values: NDArray[Any]) -> NDArray[Any]:
    """(H, W, 2 or 4), the last channel transparency, on black: (H, W) if there is no colour, else
    (H, W, 3)."""
    colours, most = values[..., :-1], np.iinfo(values.dtype).max
    if not np.ptp(colours, axis=2).any():
        colours = colours[..., :1]
    made = (colours * values[..., -1:].astype(np.uint32) + most // 2) // most
    return np.asarray(made[..., 0] if made.shape[2] == 1 else made, values.dtype)


def has_colour(image: Image) -> bool:
    """Whether the channels of any pixel differ by more than GREY_SPREAD."""
    return image.ndim == 3 and bool(_spread(image).max() > GREY_SPREAD)


def is_coloured(image: Image) -> bool:
    """Whether more than a thousandth of its pixels have a clear colour, as Doppler has."""
    if image.ndim != 3:
        return False
    step = 1 + max(image.shape) // 1024  # some pixels are enough
    return float(np.mean(_spread(image[::step, ::step]) > COLOUR_SPREAD)) > 0.001


def _spread(image: Image) -> Image:
    """(H, W, 3) -> (H, W): largest difference of two channels. Along the last axis NumPy's own
    maximum takes sixteen times as long."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    most = np.maximum(np.maximum(red, green), blue)
    return np.asarray(most - np.minimum(np.minimum(red, green), blue))


def shows_something(image: npt.NDArray[np.uint8]) -> bool:
    """Whether its darkest and brightest pixel are at least CONTRAST grey levels apart."""
    return int(image.max()) - int(image.min()) >= CONTRAST


def resize(image: Image, width: int, height: int) -> Image:
    """(H, W[, 3]) -> (height, width[, 3]): shrinking averages areas, enlarging is bilinear."""
    import cv2

    h, w = image.shape[:2]
    if (w, h) == (width, height):
        return image
    method = cv2.INTER_AREA if width < w or height < h else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)


@dataclass(frozen=True)
class Letterbox:
    """Where a picture of `width` x `height` lies inside a square of `size`: at (x, y), w x h.

    Its methods raise InputError for an image that is not of the size that they take.
    """

    width: int
    height: int
    size: int
    x: int
    y: int
    w: int
    h: int

    @classmethod
    def fit(cls, width: int, height: int, size: int) -> Letterbox:
        """The largest centred rectangle of the same aspect ratio, at least one pixel wide."""
        scale = size / max(width, height)
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        return cls(width, height, size, (size - w) // 2, (size - h) // 2, w, h)

    def place(self, image: Image) -> Image:
        """(height, width[, 3]) -> (size, size[, 3]), zero outside the rectangle."""
        scaled = resize(self._of_size(image, self.width, self.height), self.w, self.h)
        if scaled.shape[:2] == (self.size, self.size):
            return np.ascontiguousarray(scaled)
        square = np.zeros((self.size, self.size, *image.shape[2:]), np.uint8)
        square[self.y : self.y + self.h, self.x : self.x + self.w] = scaled
        return square

    def inside(self, frame: Image) -> Image:
        """(size, size[, 3]) -> (h, w[, 3]): the rectangle, a copy."""
        frame = self._of_size(frame, self.size, self.size)
        return frame[self.y : self.y + self.h, self.x : self.x + self.w].copy()

    def restore(self, frame: Image) -> Image:
        """(size, size[, 3]) -> (height, width[, 3]): the inside, at the picture's own size."""
        return resize(self.inside(frame), self.width, self.height)

    def to_square(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(..., 2) pixel coordinates (x, y) of the picture -> of the square (half-pixel rule)."""
        factors = np.array([self.w / self.width, self.h / self.height])
        return np.asarray((np.asarray(points) + 0.5) * factors - 0.5 + [self.x, self.y], float)

    def to_picture(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The inverse of `to_square`."""
        factors = np.array([self.width / self.w, self.height / self.h])
        return np.asarray((np.asarray(points) - [self.x, self.y] + 0.5) * factors - 0.5, float)

    @staticmethod
    def _of_size(image: Image, width: int, height: int) -> Image:
        h, w = check_image(image).shape[:2]
        if (w, h) != (width, height):
            raise InputError(f"expected an image of {width} x {height} pixels, not {w} x {h}")
        return image


def letterbox(image: Image, size: int) -> tuple[Image, Letterbox]:
    """Scale an image into a square of `size`, aspect ratio kept, centred, zero padding; an image of
    that size comes back unchanged.

    Raises:
        InputError: not an image.
    """
    height, width = check_image(image).shape[:2]
    box = Letterbox.fit(width, height, size)
    return box.place(image), box


def parse_crop(text: str) -> Crop | Literal["auto"]:
    """Read "x,y,w,h" in whole pixels, or "auto".

    Raises:
        ConfigError: not four whole numbers, a negative corner or an empty rectangle.
    """
    if text == "auto":
        return "auto"
    hint = "write it as x,y,w,h in pixels, for example 120,40,512,512, or auto"
    try:
        crop = Crop(*(int(part) for part in text.split(",")))
    except (TypeError, ValueError):
        raise ConfigError(f"cannot read the crop {text!r}", hint) from None
    if crop.x < 0 or crop.y < 0 or crop.w < 1 or crop.h < 1:
        raise ConfigError(f"the crop {text!r} is empty or begins outside the image", hint)
    return crop


def crop_image(image: Image, crop: Crop, what: str = "the image") -> Image:
    """The part of an image inside `crop`, as a view.

    Raises:
        InputError: the crop reaches outside the image, which is called `what`.
    """
    height, width = check_image(image).shape[:2]
    x, y, w, h = crop
    if x < 0 or y < 0 or x + w > width or y + h > height:
        raise InputError(
            f"the crop {x},{y},{w},{h} reaches outside {what} of {width} x {height} pixels",
            "the crop is x,y,w,h in pixels of the original frame",
        )
    return image[y : y + h, x : x + w]

"""Images as arrays: reading, grey and colour, cropping, and the letterbox into a model's square.

Convention: images are uint8, (H, W) grey or (H, W, 3) RGB, rows from the top. Pixel coordinates are
(x, y) with (0, 0) at the centre of the top left pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..support.errors import ConfigError, InputError
from .file_headers import check_size, image_is_cut_off, image_size

Image: TypeAlias = npt.NDArray[np.uint8]

# An uncompressed picture of the largest accepted size with 16 bits and four channels is 512 MiB.
_MAX_FILE_BYTES = 2**30

GREY_SPREAD = 8
"""Levels between the channels of a pixel up to which it is grey: noise of lossy files."""


class Crop(NamedTuple):
    """A rectangle in pixels: its top left corner, width and height."""

    x: int
    y: int
    w: int
    h: int


def read_image(path: Path | str) -> Image:
    """Read a PNG, JPEG, BMP or TIFF file.

    Returns:
        uint8 (H, W) for a grey file, (H, W, 3) RGB for a colour file. Of 16-bit values the upper
        byte is kept, transparency is dropped, orientation tags are obeyed.

    Raises:
        InputError: missing, damaged or cut off, not an image, below 8 x 8 or above 16384 pixels a
            side or 64 megapixels; sizes are checked in the header, before decoding.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise InputError(f"{path} is too large for an image", "at most 1 GiB is accepted")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist", "check the path") from None
    except OSError as cause:
        reason = cause.strerror or str(cause)
        raise InputError(f"cannot read {path}: {reason}", "check its permissions") from cause
    size = image_size(data)
    if size is None:
        raise InputError(
            f"{path} is not an image that can be read",
            "PNG, JPEG, BMP and TIFF are read; the file may be damaged, or its name may mislead",
        )
    check_size(path, *size)
    if image_is_cut_off(data):
        raise InputError(f"{path} is cut off: the end of the image is missing", "copy it again")
    return _decode(path, data)


def _decode(path: Path, data: bytes) -> Image:
    import cv2

    log: Any = getattr(cv2.utils, "logging", cv2)  # of OpenCV 5, and of 4
    level = log.setLogLevel(0)  # silent: what is wrong is said once, by the error below
    try:
        decoded: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR)
    except (cv2.error, MemoryError) as cause:
        raise InputError(f"cannot decode {path}: it is damaged", "copy it again") from cause
    finally:
        log.setLogLevel(level)
    if decoded is None:
        raise InputError(f"cannot decode {path}: it is damaged", "copy it again")
    if decoded.ndim == 3:
        decoded = decoded[..., ::-1] if decoded.shape[2] == 3 else decoded[..., 0]
    return np.ascontiguousarray(decoded, dtype=np.uint8)


def check_image(image: Image) -> Image:
    """The same array, if it is an image as this package means it.

    Raises:
        InputError: not uint8, or neither (H, W) nor (H, W, 3), or empty.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = getattr(image, "dtype", type(image).__name__)
        raise InputError(
            f"an image has to be a uint8 array, not {found}",
            "scale it to 0..255 and convert it with .astype(numpy.uint8)",
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or image.size == 0:
        raise InputError(
            f"an image has to be (H, W) or (H, W, 3), not {image.shape}",
            "grey without a channel axis, or RGB with three channels last",
        )
    return image


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
    if channels == 1 and image.ndim == 3:
        import cv2

        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    if channels == 3 and image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    return image


def has_colour(image: Image) -> bool:
    """Whether the channels of an image differ by more than a lossy file makes grey ones differ."""
    spread = image.max(axis=2) - image.min(axis=2) if image.ndim == 3 else np.zeros(1)
    return bool(spread.max() > GREY_SPREAD)


def resize(image: Image, width: int, height: int) -> Image:
    """(H, W[, 3]) -> (height, width[, 3]): shrinking averages areas, enlarging is bilinear."""
    import cv2

    h, w = image.shape[:2]
    if (w, h) == (width, height):
        return image
    shrinks = width < w or height < h
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)


@dataclass(frozen=True)
class Letterbox:
    """Where a picture of `width` x `height` lies inside a square of `size`: at (x, y), w x h."""

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
        """(height, width[, 3]) -> (size, size[, 3]), zero outside the rectangle.

        Raises:
            InputError: the image is not of this letterbox's own size.
        """
        self._expect(image, self.height, self.width)
        scaled = resize(image, self.w, self.h)
        if scaled.shape[:2] == (self.size, self.size):
            return np.ascontiguousarray(scaled)
        square = np.zeros((self.size, self.size, *image.shape[2:]), np.uint8)
        square[self.y : self.y + self.h, self.x : self.x + self.w] = scaled
        return square

    def inside(self, frame: Image) -> Image:
        """(size, size[, 3]) -> (h, w[, 3]): the rectangle, a copy.

        Raises:
            InputError: the frame is not size x size.
        """
        self._expect(frame, self.size, self.size)
        return frame[self.y : self.y + self.h, self.x : self.x + self.w].copy()

    def restore(self, frame: Image) -> Image:
        """(size, size[, 3]) -> (height, width[, 3]): the inside, at the picture's own size.

        Raises:
            InputError: the frame is not size x size.
        """
        return resize(self.inside(frame), self.width, self.height)

    def to_square(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(..., 2) pixel coordinates (x, y) of the picture -> of the square (half-pixel rule)."""
        factors = np.array([self.w / self.width, self.h / self.height])
        corner = np.array([self.x, self.y], np.float64)
        square: npt.NDArray[np.float64] = (np.asarray(points) + 0.5) * factors - 0.5 + corner
        return square

    def to_picture(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The inverse of `to_square`."""
        factors = np.array([self.width / self.w, self.height / self.h])
        corner = np.array([self.x, self.y], np.float64)
        picture: npt.NDArray[np.float64] = (np.asarray(points) - corner + 0.5) * factors - 0.5
        return picture

    def _expect(self, image: Image, height: int, width: int) -> None:
        if check_image(image).shape[:2] != (height, width):
            h, w = image.shape[:2]
            raise InputError(f"expected an image of {width} x {height} pixels, not {w} x {h}")


def letterbox(image: Image, size: int) -> tuple[Image, Letterbox]:
    """Scale an image into a square of `size`, aspect ratio kept, centred, zero padding.

    Shrinking averages areas, enlarging is bilinear; an image that is size x size already comes back
    unchanged, and so does its `restore`.

    Returns:
        uint8 (size, size) or (size, size, 3), and the `Letterbox` that leads back.

    Raises:
        InputError: not an image.
    """
    height, width = check_image(image).shape[:2]
    box = Letterbox.fit(width, height, size)
    return box.place(image), box


def parse_crop(text: str) -> Crop:
    """Read "x,y,w,h" in whole pixels.

    Raises:
        ConfigError: not four whole numbers, a negative corner or an empty rectangle.
    """
    hint = "write it as x,y,w,h in pixels, for example 120,40,512,512"
    try:
        crop = Crop(*(int(part) for part in text.split(",")))
    except (TypeError, ValueError):
        raise ConfigError(f"cannot read the crop {text!r}", hint) from None
    if crop.x < 0 or crop.y < 0 or crop.w < 1 or crop.h < 1:
        raise ConfigError(f"the crop {text!r} is empty or begins outside the image", hint)
    return crop


def check_crop(crop: Crop, width: int, height: int, what: str = "the image") -> None:
    """Refuse a crop that does not lie inside width x height pixels.

    Raises:
        InputError: naming `what`.
    """
    if crop.x < 0 or crop.y < 0 or crop.x + crop.w > width or crop.y + crop.h > height:
        shown = ",".join(map(str, crop))
        raise InputError(
            f"the crop {shown} reaches outside {what} of {width} x {height} pixels",
            "the crop is x,y,w,h in pixels of the original frame",
        )


def crop_image(image: Image, crop: Crop) -> Image:
    """The part of an image inside `crop`, as a view.

    Raises:
        InputError: the crop reaches outside the image.
    """
    height, width = check_image(image).shape[:2]
    check_crop(crop, width, height)
    return image[crop.y : crop.y + crop.h, crop.x : crop.x + crop.w]


def shows_something(image: npt.NDArray[np.uint8]) -> bool:
    """Whether its darkest and brightest pixel are CONTRAST grey levels apart, or more."""
    return int(image.max()) - int(image.min()) >= CONTRAST


CONTRAST = 8
"""Below it a picture is black or of one level: nothing can be matched with it."""

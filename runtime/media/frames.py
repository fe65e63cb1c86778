"""Images as arrays: read, convert, crop, resize, and letterbox into a model's square.

Convention: images are uint8, (H, W) grey or (H, W, 3) RGB, rows from the top. Pixel coordinates are
(x, y) with (0, 0) at the centre of the top left pixel.
"""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..support.errors import ConfigError, InputError
from .file_headers import check_size

if TYPE_CHECKING:
    from PIL import Image as PillowImage

Image: TypeAlias = npt.NDArray[np.uint8]

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_BITS, _PHOTOMETRIC, _ORIENTATION, _WHITE_IS_ZERO = 258, 262, 274, 0  # of TIFF
# What Pillow calls the turn that each orientation asks for: ROTATE_180 is 3, and so on.
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}

GREY_SPREAD = 8
"""A pixel whose channels differ by no more is grey: lossy files add such noise."""
CONTRAST = 8
"""A picture with fewer grey levels between its darkest and brightest pixel shows nothing."""


class Crop(NamedTuple):
    """A rectangle in pixels: its top left corner, width and height."""

    x: int
    y: int
    w: int
    h: int


def read_image(path: Path | str) -> Image:
    """Read a PNG, JPEG, BMP or TIFF file: (H, W) if it is grey, (H, W, 3) RGB if it has colours or
    a palette. 16-bit values keep their upper byte, transparency is dropped, orientation is obeyed.

    Raises:
        InputError: missing, damaged or cut off, not an image, 32-bit values, below 8 x 8 or above
            16384 pixels a side or 64 megapixels; the size is checked before decoding.
    """
    from PIL import Image as PillowImage
    from PIL import UnidentifiedImageError

    path = Path(path)
    try:
        if not path.is_file():
            fault = "is not a file" if path.exists() else "does not exist"
            raise InputError(f"{path} {fault}", "check the path")
        # A file object, not a path: from a path Pillow 13 maps some TIFFs into memory wrongly.
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.filterwarnings("ignore", module="PIL")  # about odd metadata
            warnings.simplefilter("error", PillowImage.DecompressionBombWarning)
            with PillowImage.open(file, formats=_FORMATS) as picture:
                check_size(path, *picture.size)
                picture.verify()  # the checksums of a PNG, which decoding skips
            file.seek(0)
            with PillowImage.open(file, formats=_FORMATS) as picture:
                return _pixels(path, picture)
    except (InputError, MemoryError):
        raise
    except Exception as cause:  # Pillow raises many kinds of errors on a damaged file
        unknown = isinstance(cause, UnidentifiedImageError)
        reason = "unknown format, or damaged" if unknown else getattr(cause, "strerror", 0) or cause
        raise InputError(
            f"cannot read {path} as an image: {reason}",
            "PNG, JPEG, BMP and TIFF are read, up to 64 megapixels; copy it again if it is "
            "damaged, or save it again without its metadata",
        ) from cause


def _pixels(path: Path, picture: PillowImage.Image) -> Image:
    from PIL import Image as PillowImage

    picture.load()
    tags = getattr(picture, "tag_v2", {})  # of a TIFF
    turn = _TURNS.get(tags.get(_ORIENTATION) or _exif_orientation(picture))
    if turn is not None:
        picture = picture.transpose(PillowImage.Transpose(turn))
    if picture.mode in ("I", "F"):
        hint = "convert it to unsigned values of 8 or 16 bits"
        raise InputError(f"{path} has signed, 32-bit or floating-point values", hint)
    if picture.mode.startswith("I;16"):
        bits = tags.get(_BITS, (16,))[0]  # 12, in some TIFFs
        levels: Image = (np.asarray(picture) >> (bits - 8)).astype(np.uint8)
        # Pillow turns negatives of 8 bits into positives, but not those of 16.
        return ~levels if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else levels
    return np.array(picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB"))


def _exif_orientation(picture: PillowImage.Image) -> int:
    """From the EXIF block alone: programs that turn a picture leave its XMP text as it was."""
    from PIL import Image as PillowImage

    exif = PillowImage.Exif()
    try:
        exif.load(picture.info.get("exif", b""))
        return int(exif.get(_ORIENTATION, 1))
    except Exception:  # odd metadata do not make a picture unreadable
        return 1


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
    if channels == 1 and image.ndim == 3:
        import cv2

        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    if channels == 3 and image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    return image


def has_colour(image: Image) -> bool:
    """Whether the channels of any pixel differ by more than GREY_SPREAD."""
    return image.ndim == 3 and bool((image.max(axis=2) - image.min(axis=2)).max() > GREY_SPREAD)


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

"""Picture files of one page or several, decoded by Pillow; deep_pictures.py has the exceptions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..media.frames import Image, on_black
from ..media.levels import Window, found_window, to_levels
from ..media.mark import SYNTHETIC
from ..support.errors import InputError
from .deep_pictures import BITS, SAMPLES, double_pages, read_page
from .file_headers import MAX_PIXELS, check_size
from .reading import IS_SYNTHETIC, Facts, Picture, Reading
from .source import FrameSource

if TYPE_CHECKING:
    from PIL import Image as PillowImage

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "JPEG2000", "PPM")
# Tags of TIFF.
_SUBFILE, _PHOTOMETRIC, _ORIENTATION, _FORMAT = 254, 262, 274, 339
_DESCRIPTION = 270
_IMAGEJ = re.compile(r"ImageJ=[^\n]*\nimages=([0-9]{1,9})\n")
"""How ImageJ describes a stack above 4 GB: one page, with all pictures behind each other."""
_SINGLE = ("JPEG", "MPO", "BMP", "JPEG2000", "PPM")
"""Formats of one picture, or one that counts."""
_FEW = 8
"""More thumbnails has no picture."""
_REDUCED, _MASK, _WHITE_IS_ZERO = 1, 4, 0


class Page(NamedTuple):
    """One picture of a file.

    Attributes:
        values: (H, W) or (H, W, 3) RGB, upright, as they are stored.
        seconds: how long it is shown; None if the file does not say.
        kind: the file's format.
        bits: of a stored value.
        declared: the range of the values; None where it has to be found.
        least_bits: how many bits the values have at least, where that is known.
        inverted: small values are white.
        aspect: width of a pixel / its height.
        pages: how many the file has, thumbnails included.
        notes: what was assumed or dropped.
    """

    values: NDArray[Any]
    seconds: float | None
    kind: str
    bits: int
    declared: Window | None
    least_bits: int
    inverted: bool
    aspect: float
    pages: int
    notes: tuple[str, ...]


class PictureSource(FrameSource):
    """The pages of a picture file: a single one, or a clip (TIFF stack, APNG, animated WebP)."""

    def __init__(self, path: Path, how: Reading, channels: int) -> None:
        super().__init__(path, how, channels, Facts("picture", colour=True))

    def _pictures(self, channels: int) -> Iterator[Picture]:
        time: float | None = 0.0
        count = 0
        try:
            for page in read_pages(self.path):
                if count == 0:
                    self.facts.kind = page.kind
                    self.count_hint = page.pages
                    adopt(self, page)
                for text in page.notes:
                    self.note(text)
                yield Picture(time, page.values)
                count += 1
                time = time + page.seconds if page.seconds and time is not None else None
        except InputError as error:
            if count == 0:
                raise
            yield Picture(None, None, f"cannot be read: {error.message}")


def adopt(source: FrameSource, page: Page) -> None:
    """Take over what the first page says about a source."""
    source.facts.bits = page.bits
    source.least_bits, source.inverted, source.aspect = (
        page.least_bits, page.inverted, page.aspect
    )  # fmt: skip
    source.scaled = page.declared == Window(0, 65535)
    if page.declared is not None:
        source.declared = page.declared, "as the file says"


def read_image(path: Path | str) -> Image:
    """The first page of a PNG, JPEG, BMP, TIFF, WebP, JPEG 2000, PGM or PPM file: uint8 (H, W) if
    it is grey, (H, W, 3) RGB if it has colours or a palette.

    Deeper values are brought to 0..255 by their range (`levels.found_window`), what is transparent
    is black, orientation is obeyed.

    Raises:
        InputError: missing, damaged or cut off, not an image, below 8 x 8 or above 16384 pixels a
            side or 64 megapixels; the size is checked before decoding.
    """
    page = next(read_pages(Path(path)))
    window = page.declared or found_window([page.values], page.least_bits)
    if page.inverted:
        window = (window or Window(0, 255)).inverted()
    return to_levels(page.values, window)


def read_pages(path: Path) -> Iterator[Page]:
    """All pages of a picture file, at least one; thumbnails and masks of a TIFF are left out.

    Raises:
        InputError: as for `read_image`.
    """
    from PIL import Image as PillowImage
    from PIL import UnidentifiedImageError

    try:
        if not path.is_file():
            fault = "is not a file" if path.exists() else "does not exist"
            raise InputError(f"{path} {fault}", "check the path")
        # A file object, not a path: from a path Pillow 13 maps some TIFFs into memory wrongly.
        with path.open("rb") as file:
            if pages := double_pages(path, file):
                more = ("of its pages, which are in double precision, the first is read",)
                notes = more if pages > 1 else ()
                yield Page(
                    read_page(path, 0, MAX_PIXELS), None, "TIFF", 64, None, 1, False, 1.0, 1, notes
                )
                return
            with warnings.catch_warnings():
                _quiet()
                with PillowImage.open(file, formats=_FORMATS) as picture:
                    check_size(path, *picture.size)
                    if getattr(picture, "n_frames", 1) == 1:  # else what is good is kept
                        picture.verify()  # the checksums of a PNG, which decoding skips
                file.seek(0)
                opened = PillowImage.open(file, formats=_FORMATS)
            with opened as picture:
                yield from _pages(path, file, picture)
    except (InputError, GeneratorExit):
        raise
    except Exception as cause:  # Pillow raises many kinds of errors on a damaged file
        unknown = isinstance(cause, UnidentifiedImageError)
        reason = "unknown format, or damaged" if unknown else getattr(cause, "strerror", 0) or cause
        if isinstance(cause, MemoryError):  # mostly of a length that the damaged file states
            reason = "it asks for more memory than there is"
        raise InputError(
            f"cannot read {path} as an image: {reason}",
            "PNG, JPEG, BMP, TIFF, WebP, JPEG 2000, PGM and PPM are read, up to 64 megapixels; "
            "copy it again if it is damaged, or save it again without its metadata",
        ) from cause


def size_and_pages(path: Path) -> tuple[tuple[int, int] | None, int]:
    """(width, height) and how many pages a picture file has, by its header; None and 0 if it cannot
    be read."""
    from PIL import Image as PillowImage

    try:
        with warnings.catch_warnings():
            _quiet()
            with PillowImage.open(path, formats=_FORMATS) as picture:
                pages = 1 if picture.format in _SINGLE else getattr(picture, "n_frames", 1)
                size, small = picture.size, 0
                for index in range(1, min(pages, _FEW)):  # thumbnails are no pages
                    picture.seek(index)
                    small += bool(_tags(picture).get(_SUBFILE, 0) & (_REDUCED | _MASK))
                return size, pages - small
    except Exception:  # whoever reads it says what is wrong
        return None, 0


def _quiet() -> None:
    from PIL import Image as PillowImage

    warnings.filterwarnings("ignore", module="PIL")  # about odd metadata
    warnings.simplefilter("error", PillowImage.DecompressionBombWarning)


def _pages(path: Path, file: BufferedReader, picture: PillowImage.Image) -> Iterator[Page]:
    index, left_out = 0, 0
    single = picture.format in _SINGLE
    skipped = bool(getattr(picture, "default_image", False))  # of an APNG: no part of the clip
    while index == 0 or not single:
        with warnings.catch_warnings():  # not while a caller works with the page
            _quiet()
            try:
                picture.seek(index)
            except EOFError:
                break
            check_size(path, *picture.size)
            tags, pages = _tags(picture), getattr(picture, "n_frames", 1)
            left = index > 0 and tags.get(_SUBFILE, 0) & (_REDUCED | _MASK)
            page = None
            if left or (skipped and index == 0):
                left_out += 1
            else:
                notes = []
                if single and pages > 1:
                    notes.append("the further pictures in it are left out")
                stated = _IMAGEJ.match(str(tags.get(_DESCRIPTION, "")))
                if stated and int(stated[1]) > pages:
                    notes.append(f"ImageJ says that it has {stated[1]} pictures: the first is read")
                if picture.info.get("Title") == SYNTHETIC:
                    notes.append(IS_SYNTHETIC)
                if left_out:
                    notes.append("thumbnails, masks or a preview in it are left out")
                page = _page(path, file, picture, index, notes)
        if page is not None:
            yield page
        index += 1


def _page(
    path: Path, file: BufferedReader, picture: PillowImage.Image, index: int, notes: list[str]
) -> Page:
    tags = _tags(picture)
    values, bits, declared, least_bits = _values(path, file, picture, index)
    if values.ndim == 3 and values.shape[2] in (2, 4):
        values = on_black(values, notes)
    orientation = tags.get(_ORIENTATION) or _exif_orientation(picture)
    aspect = _aspect(picture)
    milliseconds = picture.info.get("duration")
    return Page(
        values=np.ascontiguousarray(_TURNS.get(orientation, np.asarray)(values)),
        seconds=milliseconds / 1000 if milliseconds else None,
        kind=_NAMES.get(picture.format or "", picture.format or "picture"),
        bits=bits,
        declared=declared,
        least_bits=least_bits,
        # Pillow turns negatives of 8 bits into positives, but not deeper ones.
        inverted=tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and values.dtype != np.uint8,
        aspect=1 / aspect if orientation in _LYING else aspect,
        pages=1 if picture.format in _SINGLE else getattr(picture, "n_frames", 1),
        notes=tuple(notes),
    )


def _values(
    path: Path, file: BufferedReader, picture: PillowImage.Image, index: int
) -> tuple[NDArray[Any], int, Window | None, int]:
    """Stored values, (H, W[, 2 to 4]); their bits, range, and how many bits they have at least."""
    tags, mode = _tags(picture), picture.mode
    bits = tags.get(BITS, (8,))[0]
    head = b""
    if picture.format == "PNG":
        at = file.tell()
        file.seek(0)
        head = file.read(4096)
        file.seek(at)
        bits = head[24]
    least_bits = head[head.index(b"sBIT") + 4] if b"sBIT" in head[:-4] else 1
    least_bits = least_bits if least_bits <= 16 else 1
    many = tags.get(SAMPLES, 1) > 2 or head[25:26] in (b"\2", b"\4", b"\6")
    if bits == 16 and many:  # Pillow keeps the upper byte alone
        return read_page(path, index, picture.width * picture.height), bits, None, least_bits
    picture.load()
    if mode == "F":
        return np.array(picture), 32, None, 1
    if mode == "I" and picture.format not in ("PNG", "PPM"):
        values = np.array(picture)
        unsigned = bits == 32 and tags.get(_FORMAT, (1,))[0] == 1
        return values.view(np.uint32) if unsigned else values, bits, None, 1
    if mode == "I" or mode.startswith("I;16"):
        values = np.array(picture).astype(np.uint16)
        if picture.format in ("JPEG2000", "PPM"):  # Pillow scales them to the whole range
            return values, 16, Window(0, 65535), 1
        return values, bits, Window(0, (1 << bits) - 1) if 8 < bits < 16 else None, least_bits
    grey = mode in ("1", "L", "LA", "La")
    clear = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info
    wanted = ("LA" if grey else "RGBA") if clear else "L" if grey else "RGB"
    return np.array(picture.convert(wanted)), min(bits, 8), None, 1


def _aspect(picture: PillowImage.Image) -> float:
    """Width of a pixel / its height, by the resolution that the file states."""
    info = picture.info
    density = info.get("jfif_density") if info.get("jfif_unit") == 0 else None
    across, down = density or info.get("aspect") or info.get("dpi") or (1, 1)
    try:
        ratio = float(down) / float(across)
    except ZeroDivisionError:
        return 1.0
    return ratio if 0.1 < ratio < 10 else 1.0


def _tags(picture: PillowImage.Image) -> Any:
    return getattr(picture, "tag_v2", {})  # of a TIFF


# What each orientation asks for. In the second half rows become columns.
_TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, 3),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: np.rot90,
}
_LYING = (5, 6, 7, 8)
_NAMES = {
    "MPO": "JPEG", "PPM": "PGM or PPM", "JPEG2000": "JPEG 2000", "WEBP": "WebP",
}  # fmt: skip


def _exif_orientation(picture: PillowImage.Image) -> int:
    """From the EXIF block alone: programs that turn a picture leave its XMP text as it was."""
    from PIL import Image as PillowImage

    exif = PillowImage.Exif()
    try:
        exif.load(picture.info.get("exif", b""))
        return int(exif.get(_ORIENTATION, 1))
    except Exception:  # odd metadata do not make a picture unreadable
        return 1

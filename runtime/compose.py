"""Frames at any size: the layers of a bundle's frame, composed over the source picture.

A motion does not depend on the size of the picture that it moves, and an enlarged frame is blurred.
So the frame is made again from the source picture at the wanted size::

    frame = gain * low(deformation) + offset + gate * (source(stiff) - low(stiff))

`low` is the low-pass that the model makes of the source, at half the model's size; the texture is
`source - low`. If nothing moves and all layers are neutral, the frame is the source.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from .backends.base import EnlargedSource
from .backends.device_backend import DeviceBackend
from .bundle.manifest import SOURCE_IMAGE
from .media.frames import Image, Letterbox, resize, to_channels
from .media.pixels import to_image
from .media.region import find_region
from .session import Session, own_places
from .support.errors import BackendError, ConfigError, InputError

log = logging.getLogger("sonomime")

Size: TypeAlias = Literal["source", "model"] | tuple[int, int]
"""The source's own size, its size inside the model's square, or (width, height)."""

LEAST_SIDE, MOST_SIDE = 8, 1920
"""Smallest and largest side of a composed frame, in pixels."""

LOW_PASS = np.array((1, 4, 6, 4, 1), np.float32) / 16
"""The models' low-pass: along rows and columns of the source at half the model's size."""

FINER = 3
"""What a frame reads is enlarged this many times, so that quick bilinear reading keeps it sharp.
Odd, so that every pixel is one of the enlarged ones."""

BLACK = 24
"""Grey levels up to here, beside a sector, are its black surroundings: lossy files add noise."""

WIDE = 0.8
"""Share of a picture's sides that its sector has, at least."""
CORNERS = 0.01
"""Share of the picture that is black beside the top of a sector, at least."""

Map = NDArray[np.float32]


def parse_size(text: str) -> Size:
    """Read "source", "model" or "WIDTHxHEIGHT" in pixels; ConfigError for anything else."""
    if text in ("source", "model"):
        return cast("Size", text)
    if found := re.fullmatch(r"(\d{1,9})x(\d{1,9})", text):
        return int(found[1]), int(found[2])
    raise ConfigError(f"cannot read the size {text!r}", "source, model, or pixels, as in 800x600")


def fitted(width: int, height: int, most_wide: int, most_high: int) -> tuple[int, int]:
    """The largest (width, height) of the same shape within these limits."""
    scale = min(most_wide / width, most_high / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def target_size(size: Size, box: Letterbox) -> tuple[int, int]:
    """(width, height) of `size` for a source in this box; ConfigError if it is too small, too large
    or not of the source's shape."""
    if size == "model":
        return box.w, box.h
    own = box.width, box.height
    asked: Any = own if size == "source" else size
    if not (isinstance(asked, tuple) and len(asked) == 2):
        raise ConfigError(f"cannot compose at size {size!r}", "source, model or (width, height)")
    width, height = asked
    if max(width, height) > MOST_SIDE or (size != "source" and min(width, height) < LEAST_SIDE):
        w, h = fitted(*own, MOST_SIDE, MOST_SIDE)
        what = f"cannot compose at {width}x{height}: a side has {LEAST_SIDE} to {MOST_SIDE} pixels"
        raise ConfigError(what, f"the largest size of the source's shape is {w}x{h}")
    # A pixel more or less is rounding.
    if min(abs(width - height * own[0] / own[1]), abs(height - width * own[1] / own[0])) > 1:
        w, h = fitted(*own, width, height)
        what = f"{width}x{height} is not the shape of the source, which is {own[0]}x{own[1]}"
        raise ConfigError(what, f"{w}x{h} fits")
    return width, height


class SourcePicture:
    """The source picture of a session at its own size, and frames composed over it."""

    def __init__(self, session: Session, image: Any, box: Letterbox) -> None:
        """`image` is what the session was given, `box` where it lies in the model's square."""
        self.box = box
        self.has_frame = False  # whether the layers are of this picture; the caller sets it
        self._session = session
        # Other arrays have the model's size, and may lie on a GPU: they are read back when needed.
        self._image: Image | None = image.copy() if isinstance(image, np.ndarray) else None
        self._composer: Composer | None = None
        backend = session.backend
        self._backend = backend if isinstance(backend, DeviceBackend) else None
        # For the size of the last frame: what stays black, and the pixels there.
        self._border: tuple[tuple[int, int], Image | None, Image] | None = None
        # The size for which the backend has the picture, if it composes.
        self._given: tuple[int, int] | None = None

    def check(self, size: Size) -> tuple[int, int]:
        """(width, height) of what `compose` would make; ConfigError if it could not."""
        if self._session.chain.layers is None:
            what = "this bundle has no layers to compose frames of another size of"
            raise ConfigError(what, "leave the size out")
        return target_size(size, self.box)

    def compose_next(self, size: Size | None) -> None:
        """Let the backend compose the next frame at this size, if it can; None: not at all."""
        if self._backend is not None:
            wanted = size is not None and self._given_to_backend(self.check(size)) is not None
            self._backend.compose_next(wanted)

    def compose(self, size: Size) -> Image:
        """See `Animator.compose`."""
        target = self.check(size)
        layers = self._session.chain.layers
        if layers is None or not self.has_frame:
            raise InputError("there is no frame to compose yet", "call animate(frame) first")
        if (backend := self._given_to_backend(target)) is not None:
            frame = backend.composed()
        else:
            if self._composer is None or self._composer.size != target:
                self._composer = Composer(self._pixels(), self.box, target)
            frame = self._composer.compose(*map(self._session.read, vars(layers).values()))
        self._keep_border(frame, target)
        return frame

    def _keep_border(self, frame: Image, target: tuple[int, int]) -> None:
        """Put the source's black surroundings back, without what moved there."""
        if self._border is None or self._border[0] != target:
            border, pixels = black_border(self._pixels()), self._pixels()
            if border is not None:
                border = resize(border * np.uint8(255), *target) // 128
                pixels = resize(pixels, *target)
            self._border = target, border, pixels
        _, border, pixels = self._border
        if border is not None:
            _cv2().copyTo(pixels, border, frame)

    def _given_to_backend(self, target: tuple[int, int]) -> DeviceBackend | None:
        """Give the backend the picture for that size; None if it does not compose."""
        backend = self._backend
        if backend is None or not backend.can_compose:
            return None
        if self._given != target:
            self._given = None
            try:
                backend.compose_over(enlarge(self._pixels(), self.box, target))
            except BackendError as error:
                # If the GPU is lost, the next call fails as well.
                log.warning("frames are composed on the CPU from now on: %s", error.message)
                return None
            self._given = target
        return backend

    def _pixels(self) -> Image:
        if self._image is None:
            self._image = to_image(self._session.read(SOURCE_IMAGE))
        # A colour model may give a grey picture colours; a grey model leaves colours as they are.
        colours = self._session.chain.image.channels == 3
        return to_channels(self._image, 3) if colours else self._image


def black_border(picture: Image) -> Image | None:
    """(H, W), 1 where a picture is black beside its ultrasound sector; None if it shows none.

    No tissue can move there, and what the model makes of the sector's edge must not. A sector has
    two black corners at its top, alike, and what is black beside it lies on both sides. Dark tissue
    does not, so it may move. A small sector on a screen has to be cropped first.
    """
    grey = to_channels(picture, 1)
    region = find_region([picture])
    if min(region.box.w / grey.shape[1], region.box.h / grey.shape[0]) < WIDE:
        return None
    border = ~region.mask(*grey.shape) & (grey <= BLACK)
    axis = region.box.x + region.box.w / 2
    mirrored = np.rint(2 * axis - 1 - np.arange(grey.shape[1])).astype(int)
    border &= border[:, np.clip(mirrored, 0, grey.shape[1] - 1)]
    top = border[: region.box.y + region.box.h // 3]
    return border.astype(np.uint8) if top.sum() > CORNERS * border.size else None


class Composer:
    """Composes frames of one source picture at one size.

    csrc/compose_frame.h computes the same on a GPU: change both together.
    """

    def __init__(self, picture: Image, box: Letterbox, size: tuple[int, int]) -> None:
        """Enlarge the picture, uint8 (H, W) or (H, W, 3), which lies in the box of the model's
        square, for frames of `size`, (width, height)."""
        self.size = size
        self._box = box
        self._channels = picture.shape[2:]
        self._source = source = enlarge(picture, box, size)
        width, height = size
        # Where each column and row is in the enlarged picture.
        self._own = (
            FINER * (np.arange(width, dtype=np.float32)[None] + source.left) + FINER // 2,
            FINER * (np.arange(height, dtype=np.float32)[:, None] + source.above) + FINER // 2,
        )
        # Pixels of the enlarged picture for each point; points span 2 over the model's square.
        self._spans = [FINER / 2 * box.size * s for s in (width / box.w, height / box.h)]
        self._places = np.empty((2, height, width), np.float32)
        self._gate = np.empty((height, width, *self._channels), np.float32)
        self._base = np.empty_like(self._gate)

    def compose(self, deformation: Map, stiff: Map, gain: Map, offset: Map, gate: Map) -> Image:
        """The frame of these layers of the model's square (`bundle.manifest.Layers`): a new uint8
        array (height, width), or (height, width, 3) if the picture has colours."""
        cv2 = _cv2()
        gain, offset, gate = (self._of_picture(layer) for layer in (gain, offset, gate))
        softly, stiffly = _displacement(deformation), _displacement(stiff)
        # The low-pass is subtracted from the texture at the small size: enlarging both of them to
        # the picture's size would cost as much as the picture.
        half, low = self._box.size // 2, self._source.low
        base = _resized(gain, half) * _moved(low, softly, cv2.BORDER_REPLICATE)
        base += 255 * _resized(offset, half)
        base -= _resized(gate, half) * _moved(low, stiffly, cv2.BORDER_REFLECT)
        for axis, places in enumerate(self._places):
            self._enlarge(stiffly[..., axis] * self._spans[axis], places)
            places += self._own[axis]
        self._enlarge(gate, self._gate)
        self._enlarge(base, self._base)
        picture = self._source.picture
        moved = cv2.remap(picture, *self._places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        cv2.multiply(moved, self._gate, dst=self._gate, dtype=cv2.CV_32F)
        frame: Image = cv2.add(self._gate, self._base, dst=moved, dtype=cv2.CV_8U)
        return frame

    def _of_picture(self, layer: Map) -> Map:
        """(1, 1 or C, h, w) -> (h, w) or (h, w, 3), as the picture is."""
        planes = layer[0].transpose(1, 2, 0)
        shape = (*planes.shape[:2], *self._channels)
        return np.array(np.broadcast_to(planes if self._channels else planes[..., 0], shape))

    def _enlarge(self, layer: Map, target: Map) -> None:
        """Enlarge the part of a layer inside the box to the frame's size."""
        cv2, box = _cv2(), self._box
        inside = _resized(layer, box.size)[box.y : box.y + box.h, box.x : box.x + box.w]
        cv2.resize(inside, self.size, dst=target, interpolation=cv2.INTER_LINEAR)


def enlarge(picture: Image, box: Letterbox, size: tuple[int, int]) -> EnlargedSource:
    """What frames of one size read from a source; arguments as for `Composer`."""
    cv2 = _cv2()

    def framed(width: int, height: int, rows: Any, columns: Any) -> Any:
        """Mirrored into this many rows and columns before and after it."""
        pads = (rows, columns, (0, 0))[: picture.ndim]
        return np.pad(resize(picture, width, height), pads, mode="symmetric")

    def finer(image: Any) -> Any:
        return cv2.resize(image, None, fx=FINER, fy=FINER, interpolation=cv2.INTER_CUBIC)

    rows, columns = (box.y, box.size - box.y - box.h), (box.x, box.size - box.x - box.w)
    square = framed(box.w, box.h, rows, columns).astype(np.float32)
    half = box.size // 2
    small = cv2.resize(square, (half, half), interpolation=cv2.INTER_AREA)
    low = cv2.sepFilter2D(small, -1, LOW_PASS, LOW_PASS, borderType=cv2.BORDER_REPLICATE)
    width, height = size
    above, below = (round(n * (height / box.h)) for n in rows)
    left, right = (round(n * (width / box.w)) for n in columns)
    # The whole square, like the layers. The model sees black around the picture; here the picture
    # is mirrored, or motion would draw black over its edge.
    whole = framed(width, height, (above, below), (left, right))
    return EnlargedSource(finer(low), finer(whole), above, left, box, size)


def _displacement(deformation: Map) -> Map:
    """(1, h, w, 2) points -> (h, w, 2): how far from its own place each pixel is read."""
    return np.asarray(deformation[0] - own_places(*deformation.shape[1:3])[0])


def _moved(low: Map, displacement: Map, border: int) -> Map:
    """The low-pass (n, n[, 3]), read from the enlarged one a displacement of points away."""
    cv2 = _cv2()
    size = low.shape[0] // FINER
    places = _resized(displacement, size) * np.float32(FINER * size / 2)
    line = FINER * np.arange(size, dtype=np.float32) + FINER // 2
    places += np.stack(np.meshgrid(line, line), axis=-1)
    return np.asarray(cv2.remap(low, places, None, cv2.INTER_LINEAR, borderMode=border))


def _resized(layer: Map, size: int) -> Map:
    """(h, w[, n]) -> (size, size[, n]), bilinear."""
    cv2 = _cv2()
    return np.asarray(cv2.resize(layer, (size, size), interpolation=cv2.INTER_LINEAR))


def _cv2() -> Any:  # untyped: its stubs refuse what remap takes
    import cv2

    return cv2

"""Reading frames until the runtime's readers are there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import InputError

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


class Crop(NamedTuple):
    x: int
    y: int
    w: int
    h: int


@dataclass(frozen=True)
class Letterbox:
    width: int
    height: int
    size: int
    x: int
    y: int
    w: int
    h: int


def parse_crop(text: str) -> Crop:
    try:
        x, y, w, h = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"crop {text!r} is not x,y,w,h", "four whole numbers") from None
    if x < 0 or y < 0 or w < 1 or h < 1:
        raise InputError(f"crop {text!r} is empty or negative", "four whole numbers x,y,w,h")
    return Crop(x, y, w, h)


def crop_image(image: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if crop.x + crop.w > width or crop.y + crop.h > height:
        raise InputError(f"crop {tuple(crop)} lies outside of the {width}x{height} image", "check the crop")
    return image[crop.y : crop.y + crop.h, crop.x : crop.x + crop.w]


def to_channels(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    import cv2

    if image.ndim == 3 and channels == 1:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    if image.ndim == 2 and channels == 3:
        return np.repeat(image[..., None], 3, axis=2)
    return image


def letterbox(image: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], Letterbox]:
    import cv2

    height, width = image.shape[:2]
    scale = size / max(width, height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    x, y = (size - w) // 2, (size - h) // 2
    out = np.zeros((size, size, *image.shape[2:]), np.uint8)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    out[y : y + h, x : x + w] = image if scale == 1 else cv2.resize(image, (w, h), interpolation=how)
    return out, Letterbox(width, height, size, x, y, w, h)


def frame_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGES and not p.name.startswith("."))


def read_frames(path: Path, channels: int) -> Iterator[tuple[int, str | None, NDArray[np.uint8]]]:
    import av
    import cv2

    if path.is_dir():
        for i, file in enumerate(frame_files(path)):
            image = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
            if image is None:
                raise InputError(f"{file}: not an image", "remove it")
            yield i, file.name, to_channels(np.asarray(image, np.uint8), channels)
        return
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            for i, frame in enumerate(container.decode(stream)):
                image = frame.to_ndarray(format="gray" if channels == 1 else "rgb24")
                yield i, None, image
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: cannot be read as a video ({error})", "check the file") from error

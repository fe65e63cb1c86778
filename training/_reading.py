"""Reading frames until the runtime's readers are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import InputError
from ..runtime.frames import to_channels

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def frame_files(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in IMAGES and not p.name.startswith(".")
    )


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
        raise InputError(
            f"{path}: cannot be read as a video ({error})", "check the file"
        ) from error

"""Pages that Pillow cuts short or does not know: several channels of 16 bits, double precision."""

from __future__ import annotations

import warnings
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .file_headers import check_size

BITS, SAMPLES = 258, 277
"""Tags of TIFF."""


def double_pages(path: Path, file: BufferedReader) -> int:
    """How many pages a TIFF has whose first one holds grey numbers in double precision: 1, or 2 for
    more; 0 for any other file."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    head = file.read(8)
    try:
        tags = ImageFileDirectory_v2(head)
        file.seek(tags.next)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags.load(file)
        found = tags.get(BITS, ()) == (64,) and tags.get(SAMPLES, 1) == 1
        size = int(tags.get(256, 0)), int(tags.get(257, 0))
    except Exception:  # no TIFF, or a damaged one, which Pillow reports
        return 0
    finally:
        file.seek(0)
    if not found:
        return 0
    check_size(path, *size)
    return 2 if tags.next else 1


def read_page(path: Path, index: int) -> NDArray[Any]:
    """A page with several channels of 16 bits: (H, W), (H, W, 3) or, with alpha, (H, W, 4)."""
    import cv2

    data = np.memmap(path, np.uint8, "r")
    if data[:2].tobytes() in (b"II", b"MM"):
        found = cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED, range=(index, index + 1))[1]
    else:
        found = [each for each in [cv2.imdecode(data, cv2.IMREAD_UNCHANGED)] if each is not None]
    if not found:
        raise ValueError("its pixels cannot be decoded")
    values = np.asarray(found[0])
    if values.ndim == 2:
        return values
    return values[..., [2, 1, 0, *range(3, values.shape[2])]]

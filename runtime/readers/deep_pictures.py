"""Pages that Pillow cuts short or does not know: several channels of 16 bits, double precision."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
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


def read_page(path: Path, index: int, pixels: int) -> NDArray[Any]:
    """A page with several channels of 16 bits: (H, W), (H, W, 3) or, with alpha, (H, W, 4).

    Args:
        pixels: how many a page has, about: small ones of a TIFF are decoded some at a time, since
            OpenCV finds each by going through all those before it.

    Raises:
        ValueError: it cannot be decoded.
        Exception: what OpenCV raises.
    """
    import cv2

    with path.open("rb") as file:
        is_tiff = file.read(2) in (b"II", b"MM")
    if is_tiff:
        many = max(1, min(64, (4 << 20) // max(pixels, 1)))
        found = _pages(path, path.stat().st_mtime_ns, index // many * many, many)
        values = found[index % many] if index % many < len(found) else None
    else:
        values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("its pixels cannot be decoded")
    if values.ndim == 2:
        return values
    return values[..., [2, 1, 0, *range(3, values.shape[2])]]


@lru_cache(maxsize=1)
def _pages(path: Path, changed: int, first: int, count: int) -> Sequence[NDArray[Any]]:
    import cv2

    data, part = np.memmap(path, np.uint8, "r"), (first, first + count)
    return [np.asarray(page) for page in cv2.imdecodemulti(data, -1, range=part)[1]]

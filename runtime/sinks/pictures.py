"""Frames into PNG files: a folder of them, or a single one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from ..media.frames import Image, png_bytes
from ..readers.folder import TIMES
from ..support.errors import OutputError
from .writing import Put, writing


@contextmanager
def picture_writer(path: Path, temporary: Path, metadata: Mapping[str, str]) -> Iterator[Put]:
    """Writes numbered files and the table of their times into a folder, or one file."""
    numbered = (temporary / f"frame_{i:06d}.png" for i in count())
    files = numbered if temporary.is_dir() else iter([temporary])
    table = ["frame,seconds"]

    def put(image: Image, seconds: float) -> None:
        file = next(files, None)
        if file is None:
            raise OutputError(
                f"{path} holds one frame, and there are more",
                "end the name in .mp4 or .mkv, or in nothing for a folder of frames",
            )
        file.write_bytes(png_bytes(image, metadata))
        table.append(f"{file.name},{seconds:.9f}")

    yield put
    if temporary.is_dir():
        with writing(path):
            (temporary / TIMES).write_text("\n".join([*table, ""]))

"""Frames into a MetaImage file (.mha): pictures over time, as PLUS and 3D Slicer write them."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..media.frames import Image
from .writing import Put, writing


@contextmanager
def metaimage_writer(
    path: Path,
    temporary: Path,
    size: tuple[int, int],
    channels: int,
    metadata: Mapping[str, str],
    spacing: tuple[float, float] | None,
) -> Iterator[Put]:
    """Yield what takes frames and their times in seconds, for a sequence as PLUS writes it: not
    packed, with the time of each frame. 3D Slicer shows it as a sequence (NAME.seq.mha)."""
    times: list[float] = []
    # The header comes first, and says how many frames there are.
    with tempfile.TemporaryFile(dir=temporary.parent) as pixels:

        def put(image: Image, seconds: float) -> None:
            pixels.write(np.ascontiguousarray(image).data)
            times.append(seconds)

        yield put
        fields = {
            "ObjectType": "Image",
            "NDims": "3",
            **{re.sub(r"\W", "_", key).capitalize(): text for key, text in metadata.items()},
            "BinaryData": "True",
            "BinaryDataByteOrderMSB": "False",
            "CompressedData": "False",
            "TransformMatrix": "1 0 0 0 1 0 0 0 1",
            "Offset": "0 0 0",
            "CenterOfRotation": "0 0 0",
            "AnatomicalOrientation": "RAI",
            "ElementSpacing": "{:.9g} {:.9g} 1".format(*(spacing or (1, 1))),
            "DimSize": f"{size[0]} {size[1]} {len(times)}",
            "Kinds": "domain domain list",
            "ElementNumberOfChannels": str(channels),
            "ElementType": "MET_UCHAR",
            "UltrasoundImageOrientation": "MF",
            "UltrasoundImageType": "BRIGHTNESS" if channels == 1 else "RGB_COLOR",
        }
        for number, seconds in enumerate(times):
            fields[f"Seq_Frame{number:04}_Timestamp"] = f"{seconds:.9f}"
            fields[f"Seq_Frame{number:04}_ImageStatus"] = "OK"
        fields["ElementDataFile"] = "LOCAL"
        header = "".join(f"{key} = {' '.join(text.split())}\n" for key, text in fields.items())
        pixels.seek(0)
        with writing(path), temporary.open("wb") as whole:
            whole.write(header.encode())
            shutil.copyfileobj(pixels, whole, 1 << 20)

"""DICOM files for tests, written by pydicom and its encoders, not by our own writer."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from media_files import LEVELS
from PIL import Image as PillowImage

from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.readers.reading import Reading

CINE = "1.2.840.10008.5.1.4.1.1.3.1"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG = f"{EXPLICIT}.99", "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"
JPEG, JPEG_LOSSLESS = (f"1.2.840.10008.1.2.4.{end}" for end in (50, 70))
JPEG_LS, JPEG_2000, MPEG4 = (f"1.2.840.10008.1.2.4.{end}" for end in (80, 90, 102))
GREY = np.ascontiguousarray(LEVELS[::2, ::2])
NONSENSE = "98765432"
"""A number that is letters in the file, which pydicom would not write."""
ENCODED_BY = {RLE: "pydicom", JPEG_LS: "pyjpegls"}


def write_dicom(
    path: Path,
    frames: Sequence[np.ndarray],
    colours: str = "MONOCHROME2",
    syntax: str = EXPLICIT,
    encoded: Sequence[bytes] | None = None,
    table: bool = True,
    **elements: Any,
) -> Path:
    """Write stored values, (H, W) or (H, W, 3), of any integer type.

    Args:
        encoded: the bytes of each frame, compressed.
        table: whether frames that are compressed get a table of offsets.
        elements: what else the header holds, by keyword; None: this element is left out.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, generate_uid

    stack = np.stack(frames)
    bits = 8 * stack.itemsize
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    rows, columns = stack.shape[1:3]
    values = {
        "SOPClassUID": CINE, "SOPInstanceUID": generate_uid(), "Modality": "US",
        "NumberOfFrames": len(stack), "Rows": rows, "Columns": columns,
        "SamplesPerPixel": stack[0, 0, 0].size, "PhotometricInterpretation": colours,
        "BitsAllocated": bits, "BitsStored": bits,
        "PixelRepresentation": int(stack.dtype.kind == "i"),
        "FrameTime": "40", "FrameIncrementPointer": 0x00181063, **elements,
    }  # fmt: skip
    values.setdefault("HighBit", values["BitsStored"] - 1)
    if stack.ndim == 4:
        values.setdefault("PlanarConfiguration", 0)
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    if encoded is not None:
        dataset.PixelData = encapsulate(list(encoded), has_bot=table)
        dataset["PixelData"].is_undefined_length = True
    elif syntax in ENCODED_BY:
        dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT)
        dataset.PixelData = stack.tobytes() + bytes(stack.nbytes % 2)
        dataset["PixelData"].VR = "OW"
        kept = dataset.SOPInstanceUID
        dataset.compress(UID(syntax), encoding_plugin=ENCODED_BY[syntax])
        dataset.SOPInstanceUID = kept
    else:
        if values.get("PlanarConfiguration"):
            stack = np.moveaxis(stack, 3, 1)
        if colours == "YBR_FULL_422":  # Y1 Y2 B R for every two pixels
            pairs = stack.reshape(len(stack), rows, columns // 2, 2, 3)
            stack = np.concatenate([pairs[..., 0], pairs[..., 0, 1:]], axis=-1)
        data = stack.astype(stack.dtype.newbyteorder(">" if syntax == BIG else "<")).tobytes()
        dataset.PixelData = data + bytes(len(data) % 2)
    if syntax not in ENCODED_BY:
        dataset["PixelData"].VR = "OB" if bits == 8 or encoded is not None else "OW"
    dataset.save_as(path, enforce_file_format=True)
    path.write_bytes(path.read_bytes().replace(NONSENSE.encode(), b"nonsense"))
    return path


def jpeg(image: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(image).save(file, "JPEG", **{"quality": 95, **options})
    return file.getvalue()


def raw_jpeg(values: np.ndarray, marker: bytes) -> bytes:
    """Three components as they are, and one marker (APP14), or none, that says what they are."""
    file = io.BytesIO()
    picture = PillowImage.frombytes("YCbCr", values.shape[1::-1], values.tobytes())
    picture.save(file, "JPEG", quality=95, subsampling=0)
    data = file.getvalue()
    after = 4 + int.from_bytes(data[4:6], "big")  # of the marker of JFIF
    segment = b"\xff\xee" + (len(marker) + 2).to_bytes(2, "big") + marker if marker else b""
    return data[:2] + segment + data[after:]


def jpeg_2000(image: np.ndarray) -> bytes:
    """Exact; of colours, it is YBR_RCT."""
    file = io.BytesIO()
    picture = PillowImage.fromarray(image)
    picture.save(file, "JPEG2000", no_jp2=True, num_resolutions=1, mct=image.ndim == 3)
    return file.getvalue()


def lossless_jpeg(values: np.ndarray, bits: int) -> bytes:
    """(H, W[, 3]) of `bits` bits, predicted by the pixel to the left (selection value 1)."""
    planes = values.reshape(*values.shape[:2], -1).astype(int)
    count = planes.shape[2]
    before = np.roll(planes, 1, axis=1)
    before[1:, 0], before[0, 0] = planes[:-1, 0], 1 << bits - 1
    text = ""
    for step in ((planes - before + 32768) % 65536 - 32768).ravel().tolist():
        category = abs(step).bit_length()  # which has a code of five bits: its own number
        text += f"{category:05b}"
        if 0 < category < 16:
            text += f"{step if step > 0 else step + (1 << category) - 1:0{category}b}"
    text += "1" * (-len(text) % 8)
    return b"".join((
        b"\xff\xd8\xff\xc3",
        struct.pack(">HBHHB", 8 + 3 * count, bits, *values.shape[:2], count),
        *(bytes((number, 0x11, 0)) for number in range(count)),
        b"\xff\xc4", struct.pack(">HB", 19 + 17, 0), bytes((0, 0, 0, 0, 17, *[0] * 11, *range(17))),
        b"\xff\xda", struct.pack(">HB", 6 + 2 * count, count),
        *(bytes((number, 0)) for number in range(count)), b"\1\0\0",
        int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0"), b"\xff\xd9",
    ))  # fmt: skip


def region(x0: int, y0: int, x1: int, y1: int, space: int = 1, kind: int = 1, **more: Any) -> Any:
    """An ultrasound region; x1 and y1 are inside of it. One pixel is 0.2 mm."""
    from pydicom.dataset import Dataset

    item = Dataset()
    for keyword, value in {
        "RegionSpatialFormat": space, "RegionDataType": kind, "RegionFlags": 0,
        "RegionLocationMinX0": x0, "RegionLocationMinY0": y0,
        "RegionLocationMaxX1": x1, "RegionLocationMaxY1": y1,
        "PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.02, "PhysicalDeltaY": 0.02, **more,
    }.items():  # fmt: skip
        setattr(item, keyword, value)
    return item


# -- read -----------------------------------------------------------------------------------------


def levels(path: Path, channels: int = 1, **how: Any) -> list[np.ndarray]:
    return [frame.image for frame in open_source(path, Reading(**how), channels)]


def times(path: Path) -> list[float]:
    return [frame.timestamp for frame in open_source(path)]


def notes(path: Path, **how: Any) -> str:
    return " / ".join(open_source(path, Reading(**how)).facts.notes)


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip(np.rint((values.astype(float) - low) * 255 / (high - low)), 0, 255)

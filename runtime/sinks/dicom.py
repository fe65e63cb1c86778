"""Frames into a DICOM file: Ultrasound Multi-frame Image Storage, not compressed.

How many frames there are, and when, is known at the end, and a DICOM file says it at the beginning.
So the frames wait in a nameless file, and are copied behind the header.
"""

from __future__ import annotations

import shutil
import struct
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np

from ... import __version__
from ..media.frames import Image
from ..readers.dicom_file import quiet
from ..readers.reading import Facts
from ..support.errors import InputError, OutputError
from .writing import Put, writing

_ULTRASOUND_CINE = "1.2.840.10008.5.1.4.1.1.3.1"
_TISSUE_2D = {"RegionSpatialFormat": 1, "RegionDataType": 1, "RegionFlags": 0}
_CENTIMETRES = 3
_MOST_BYTES = (1 << 32) - 2
_EVEN = 0.0005
"""Frames that are all within half a millisecond of an even rate are said to have that rate, since
few programs obey the times of single frames; containers of videos round more than that."""


def may_show_somebody(facts: Facts, allowed: bool) -> bool | None:
    """Whether the pictures made from a source may show who was examined, for `burned_in` of
    `open_sink`; None if its file does not say.

    Raises:
        InputError: they may, by what the source's file says, and that is not allowed.
    """
    if facts.burned_in and not allowed:
        raise InputError(
            "the source says that it shows who was examined (BurnedInAnnotation = YES)",
            "crop it away or black it out (--source-crop, --mask-outside-region), look at the "
            "result, and allow it: --allow-burned-in; the file will say YES too",
        )
    return facts.burned_in


class DicomWriter:
    """Collects frames of one size in an open file; `finish` writes the DICOM file.

    Args:
        path: the name that errors give.
        frames: where the pixels wait, empty.
        size: (width, height) of every frame.
        channels: 1 for MONOCHROME2, 3 for RGB.
        fps: the rate of a single frame.
        metadata: "title" becomes the description of the series, "comment" of the derivation.
        spacing: (x, y) millimetres from one pixel to the next; None if not known.
        burned_in: whether the pictures show who was examined; None: nothing is said of it.

    Raises:
        OutputError: pydicom is missing.
    """

    def __init__(
        self, path: Path, frames: BinaryIO, size: tuple[int, int], channels: int, fps: Fraction,
        metadata: Mapping[str, str], spacing: tuple[float, float] | None, burned_in: bool | None,
    ) -> None:  # fmt: skip
        try:
            import pydicom  # noqa: F401 - fail before the first frame
        except ImportError as cause:
            hint = 'pip install "sonomime[dicom]"'
            raise OutputError(f"cannot write {path}: pydicom is not installed", hint) from cause
        self._path, self._frames, self._size, self._channels = path, frames, size, channels
        self._fps, self._metadata, self._spacing = fps, metadata, spacing
        self._burned_in = burned_in
        self._times = array("d")

    def put(self, image: Image, seconds: float) -> None:
        """Add a frame of the right size and channels.

        Raises:
            OutputError: the file would be longer than a DICOM file can be.
            OSError: it cannot be written.
        """
        if image.nbytes * (len(self._times) + 1) > _MOST_BYTES:
            raise OutputError(
                f"{self._path} cannot hold more than {len(self._times)} frames of this size",
                "DICOM ends at 4 GiB: write a shorter clip, a smaller --crop, or .mkv",
            )
        self._frames.write(np.ascontiguousarray(image).data)
        self._times.append(seconds)

    def finish(self, path: Path) -> None:
        """Write the file: the header, then the frames."""
        from pydicom import dcmwrite

        header = self._header()
        length = self._frames.tell()
        self._frames.seek(0)
        with path.open("wb") as file, quiet():
            dcmwrite(file, header, enforce_file_format=True)
            file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, length + length % 2))
            shutil.copyfileobj(self._frames, file, 1 << 20)
            file.write(bytes(length % 2))

    def _header(self) -> Any:
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, generate_uid

        width, height = self._size
        title = self._metadata.get("title", "Synthetic ultrasound")
        made = self._metadata.get("comment", f"Made by sonomime {__version__}.")
        us = {
            "Manufacturer": "sonomime",
            "ManufacturerModelName": "sonomime",
            "SoftwareVersions": __version__,
        }
        purpose = {
            "CodeValue": "109103",
            "CodingSchemeDesignator": "DCM",
            "CodeMeaning": "Modifying Equipment",
        }
        values: dict[str, Any] = {
            **us, **self._timing(),
            "SpecificCharacterSet": "ISO_IR 192",
            "ImageType": ["DERIVED", "SECONDARY"],
            "SOPClassUID": _ULTRASOUND_CINE,
            "Modality": "US",
            "SeriesDescription": title[:64],
            "DerivationDescription": made[:1024],
            "ContributingEquipmentSequence": [_dataset({
                **us, "PurposeOfReferenceCodeSequence": [_dataset(purpose)],
                "ContributionDescription": title[:1024],
            })],
            "PatientName": "SYNTHETIC^ULTRASOUND",
            "PatientID": "SYNTHETIC",
            **dict.fromkeys((
                "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
                "PatientBirthDate", "PatientSex", "StudyID", "PatientOrientation", "Laterality",
            ), ""),
            **{f"{each}InstanceUID": generate_uid(None) for each in ("SOP", "Study", "Series")},
            "SeriesNumber": 1,
            "InstanceNumber": 1,
            "SamplesPerPixel": self._channels,
            "PhotometricInterpretation": "MONOCHROME2" if self._channels == 1 else "RGB",
            "Rows": height, "Columns": width, "NumberOfFrames": len(self._times),
            "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0,
        }  # fmt: skip
        if self._burned_in is not None:
            values["BurnedInAnnotation"] = "YES" if self._burned_in else "NO"
        if self._channels == 3:
            values["PlanarConfiguration"] = 0
        if self._spacing is not None:
            values["SequenceOfUltrasoundRegions"] = [_dataset({
                **_TISSUE_2D,
                "RegionLocationMinX0": 0, "RegionLocationMinY0": 0,
                "RegionLocationMaxX1": width - 1, "RegionLocationMaxY1": height - 1,
                "PhysicalUnitsXDirection": _CENTIMETRES, "PhysicalUnitsYDirection": _CENTIMETRES,
                "PhysicalDeltaX": self._spacing[0] / 10, "PhysicalDeltaY": self._spacing[1] / 10,
            })]  # fmt: skip
        header = _dataset(values)
        header.add_new(0x0008001C, "CS", "YES")  # Synthetic Data, younger than some dictionaries
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        return header

    def _timing(self) -> dict[str, Any]:
        """Times in milliseconds: one interval where all are alike, else all of them."""
        times, count = self._times, len(self._times)
        step = (times[-1] - times[0]) / (count - 1) if count > 1 else float(1 / self._fps)
        if all(abs(time - times[0] - i * step) <= _EVEN for i, time in enumerate(times)):
            return {"FrameTime": f"{step * 1000:.10g}", "FrameIncrementPointer": 0x00181063}
        since = [round((time - times[0]) * 1000, 3) for time in times]
        each = [0.0, *(b - a for a, b in pairwise(since))]
        return {
            "FrameTimeVector": [f"{interval:.10g}" for interval in each],
            "FrameIncrementPointer": 0x00181065,
        }


def _dataset(values: Mapping[str, Any]) -> Any:
    from pydicom.dataset import Dataset

    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


@contextmanager
def dicom_writer(path: Path, temporary: Path, *how: Any) -> Iterator[Put]:
    with writing(path):
        frames = TemporaryFile(dir=temporary.parent)  # noqa: SIM115 - closing can fail too
    try:
        writer = DicomWriter(path, frames, *how)
        yield writer.put
        with writing(path):
            writer.finish(temporary)
    finally:
        with suppress(OSError):  # a full disk that fails once more
            frames.close()

"""Who reads what: the one place where a path becomes a source of frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..support.errors import InputError, UnsupportedFormat
from .dicom import open_dicom
from .file_headers import DICOM, IMAGE, VIDEO, kind_of
from .folder import FolderSource
from .source import FrameSource, Reading
from .stills import PictureSource
from .video import VideoSource

#: Who reads what `kind_of` names.
READERS: dict[str, Callable[[Path, Reading, int], FrameSource]] = {
    IMAGE: PictureSource,
    VIDEO: VideoSource,
    DICOM: open_dicom,
}
_DEFAULT = Reading()


def open_source(path: Path | str, how: Reading = _DEFAULT, channels: int = 1) -> FrameSource:
    """Open a clip or picture, or a folder of pictures.

    The first frames are decoded at once, so that an unusable file is refused here, and the source's
    `facts` say what was read. The file is open only during an iteration, with one frame of it in
    memory.

    Args:
        path: a video (MP4, MOV, Matroska, WebM, AVI, MPEG, GIF ...), a picture (PNG, JPEG, BMP,
            TIFF, WebP, JPEG 2000, PGM, PPM; of several pages or animated: a clip), ultrasound DICOM
            or a folder of pictures; files are recognised by content, not by name.
        how: crop, range of values, rate, what to do on damage.
        channels: 1 for grey, 3 for RGB.

    Raises:
        InputError: missing, not of a known kind, no frames, a size below 8 x 8 or above 16384 a
            side or 64 megapixels, a crop that reaches outside, damage before the first whole frame;
            with `on_damage` "stop" or when strict, also while iterating: damage that the decoder
            reports (some decoders conceal it), a change of size.
        UnsupportedFormat: NIfTI; DICOM where pydicom is missing.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist", "check the path")
        if path.is_dir():
            return FolderSource(path, how, channels)
        if not path.is_file():
            raise InputError(f"{path} is neither a file nor a folder", "name a video or image")
        kind = kind_of(path)
        if kind not in READERS:
            raise UnsupportedFormat(
                f"{path} is {kind}, which has no reader",
                "convert it to .mp4, .mkv or a folder of .png frames first",
            )
        return READERS[kind](path, how, channels)
    except OSError as cause:
        reason = cause.strerror or str(cause)
        raise InputError(f"cannot read {path}: {reason}", "check permissions") from cause

"""Who reads what: the one place where a path becomes a source of frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..support.errors import InputError, UnsupportedFormat
from .dicom import open_dicom
from .file_headers import DICOM, IMAGE, METAIMAGE, NRRD, VIDEO, kind_of
from .folder import FolderSource, series_of
from .metaimage import open_metaimage, read_metaimage
from .nrrd import open_nrrd, read_nrrd
from .reading import AS_IS, Reading
from .source import FrameSource
from .stills import PictureSource
from .video import VideoSource

#: Who reads what `kind_of` names.
READERS: dict[str, Callable[[Path, Reading, int], FrameSource]] = {
    IMAGE: PictureSource,
    VIDEO: VideoSource,
    DICOM: open_dicom,
    METAIMAGE: open_metaimage,
    NRRD: open_nrrd,
}


def open_source(
    path: Path | str, how: Reading = AS_IS, channels: int = 1, announce: bool = True
) -> FrameSource:
    """Open a clip or picture, or a folder of pictures.

    The first frames are decoded at once, so that an unusable file is refused here, and the source's
    `facts` say what was read. The file is open only during an iteration, with one frame of it in
    memory.

    Args:
        path: a video (MP4, MOV, Matroska, WebM, AVI, MPEG, GIF ...), a picture (PNG, JPEG, BMP,
            TIFF, WebP, JPEG 2000, PGM, PPM; of several pages or animated: a clip), ultrasound in
            DICOM, a MetaImage or NRRD file of pictures over time or of a volume, whose slices are
            then the frames, or a folder of pictures; recognised by content, not by name.
        how: crop, range of values, rate, what to do on damage.
        channels: 1 for grey, 3 for RGB.
        announce: log what was assumed or dropped; if not, the caller will (`FrameSource.announce`).

    Raises:
        InputError: missing, not of a known kind, no frames, a size below 8 x 8 or above 16384 a
            side or 64 megapixels, a crop that reaches outside, damage before the first whole frame;
            with `on_damage` "stop" or when strict, also while iterating: damage that the decoder
            reports (some decoders conceal it), a change of size.
        UnsupportedFormat: NIfTI; an array that is no clip of flat pictures; DICOM or NRRD where
            the library for it is missing.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist", "check the path")
        source = _reader_of(path)(path, how, channels)
    except OSError as cause:
        reason = cause.strerror or str(cause)
        raise InputError(f"cannot read {path}: {reason}", "check permissions") from cause
    if announce:
        source.announce()
    return source


def _reader_of(path: Path) -> Callable[[Path, Reading, int], FrameSource]:
    if path.is_dir():
        return FolderSource
    if not path.is_file():
        raise InputError(f"{path} is neither a file nor a folder", "name a video or image")
    kind = kind_of(path)
    if kind not in READERS:
        raise UnsupportedFormat(
            f"{path} is {kind}, which has no reader",
            "convert it to .mp4, .mkv or a folder of .png frames first",
        )
    return READERS[kind]


def files_of(path: Path) -> list[Path]:
    """All files that a clip's pictures are read from, its own first.

    Raises:
        InputError: a folder without frames, a header that is damaged.
        OSError: it cannot be read.
    """
    if path.is_dir():
        return series_of(path).files
    read = {METAIMAGE: read_metaimage, NRRD: read_nrrd}.get(kind_of(path))
    return (
        [path, *(part.path for part in read(path).parts if part.path != path)] if read else [path]
    )

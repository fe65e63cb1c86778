"""Still pictures are read exactly, within bounds, or refused by an InputError."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from media_files import apart, noise
from PIL import Image as PillowImage

from sonomime.runtime.media.frames import read_image
from sonomime.runtime.support.errors import InputError

SUFFIXES = [".png", ".bmp", ".tif", ".jpg"]


def encoded(image: np.ndarray, suffix: str) -> bytes:
    """By OpenCV, so that the reader is not tested against its own library."""
    bgr = image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])
    return cv2.imencode(suffix, bgr)[1].tobytes()


def claiming(suffix: str, width: int, height: int) -> bytes:
    """A picture of 16 x 16 pixels whose header says another size."""
    data = bytearray(encoded(noise(16, 16), suffix))
    if suffix == ".png":
        struct.pack_into(">II", data, 16, width, height)
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    elif suffix == ".bmp":
        struct.pack_into("<ii", data, 18, width, height)
    elif suffix == ".jpg":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    else:
        for tag, side in ((256, width), (257, height)):
            at = data.rindex(struct.pack("<HHI", tag, 3, 1))
            struct.pack_into("<HHII", data, at, tag, 4, 1, side)
    return bytes(data)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", [(40, 31), (40, 31, 3)])
def test_pixels_are_those_of_the_file(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(noise(*shape), suffix))
    read = read_image(path)
    expected = cv2.imread(str(path), cv2.IMREAD_ANYCOLOR)
    assert np.array_equal(read, expected if read.ndim == 2 else expected[..., ::-1])
    assert read.shape == shape and read.flags.c_contiguous and read.flags.writeable
    assert suffix == ".jpg" or np.array_equal(read, noise(*shape))


def test_how_pixels_are_stored_does_not_matter(tmp_path: Path) -> None:
    """16 bits, transparency, palettes, two levels; the content counts, not the name."""
    colour, grey, alpha = noise(20, 30, 3), noise(20, 30), noise(20, 30, seed=1)
    for suffix in (".png", ".tif"):
        for image in (grey, colour):  # of 16 bits the upper byte is kept
            deep = image.astype(np.uint16) << 8 | 77
            (tmp_path / "a.jpg").write_bytes(encoded(deep, suffix))
            assert np.array_equal(read_image(tmp_path / "a.jpg"), image)
    for photometric, expected in ((1, grey), (0, 255 - grey)):  # 0: white is zero
        path = deep_tiff(tmp_path / "deep.tif", grey.astype("<u2") << 8, photometric)
        assert np.array_equal(read_image(path), expected)
    few = PillowImage.fromarray(colour).quantize(16)
    pictures = {
        "rgba": (PillowImage.fromarray(np.dstack([colour, alpha])), colour),
        "la": (PillowImage.fromarray(np.dstack([grey, alpha])), grey),
        "palette": (few, np.array(few.convert("RGB"))),
        "two levels": (PillowImage.fromarray(grey > 127), (grey > 127) * np.uint8(255)),
    }
    for name, (picture, pixels) in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        assert np.array_equal(read_image(tmp_path / f"{name}.png"), pixels), name


def deep_tiff(path: Path, words: np.ndarray, photometric: int) -> Path:
    """An uncompressed grey TIFF of 16-bit words."""
    height, width = words.shape
    entries = [(256, width), (257, height), (258, 16), (259, 1), (262, photometric), (273, 8)]
    entries += [(277, 1), (278, height), (279, words.size * 2)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = struct.pack("<2sHI", b"II", 42, 8 + words.nbytes) + words.tobytes()
    path.write_bytes(head + struct.pack("<H", len(entries)) + directory + bytes(4))
    return path


def test_orientation_tags_are_obeyed_and_odd_metadata_are_not(tmp_path: Path) -> None:
    upright = np.zeros((40, 64), np.uint8)
    upright[:16, :16] = 200
    stored = PillowImage.fromarray(np.rot90(upright).copy())
    exif = PillowImage.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees
    for suffix in (".jpg", ".png", ".tif"):
        stored.save(tmp_path / f"a{suffix}", exif=exif)
        assert apart(read_image(tmp_path / f"a{suffix}"), upright).max() <= 3
    exif[0x010F] = "maker"
    block = exif.tobytes().replace(b"maker", b"\xff\xfe\x00\x01\x80")
    stored.save(tmp_path / "odd.png", exif=block)
    assert np.array_equal(read_image(tmp_path / "odd.png"), upright)
    stored.save(tmp_path / "told.jpg", xmp=b'<x tiff:Orientation="6"/>')
    assert read_image(tmp_path / "told.jpg").shape == (64, 40)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_size_out_of_bounds_is_refused_before_decoding(tmp_path: Path, suffix: str) -> None:
    for size, word in (
        ((7, 300), "too small"),
        ((17000, 100), "too large"),
        ((9000, 9000), "too large"),
        ((10_000, 10_000), "100000000 pixels"),  # Pillow warns of a bomb
        ((16000, 16000), "256000000 pixels"),  # Pillow refuses to open it
    ):
        (tmp_path / "a").write_bytes(claiming(suffix, *size))
        with pytest.raises(InputError, match=word) as caught:
            read_image(tmp_path / "a")
        assert str(tmp_path / "a") in caught.value.message and caught.value.hint


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_cut_off_is_an_input_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str
) -> None:
    data = encoded(noise(64, 64), suffix)
    for part in (0.0, 0.02, 0.5, 0.97):
        (tmp_path / f"a{suffix}").write_bytes(data[: int(len(data) * part)])
        with pytest.raises(InputError, match=f"a{suffix}"):
            read_image(tmp_path / f"a{suffix}")
    assert capfd.readouterr() == ("", "")  # the libraries' own complaints are not shown


def test_what_is_not_a_file_or_not_a_sound_image_is_an_input_error(tmp_path: Path) -> None:
    data = bytearray(encoded(noise(64, 64), ".png"))
    (tmp_path / "end.png").write_bytes(data[:-12])
    data[data.index(b"IEND") - 8] ^= 1  # the checksum of the pixels
    (tmp_path / "sum.png").write_bytes(data)
    (tmp_path / "text.png").write_text("hello")
    os.mkfifo(tmp_path / "pipe.png")
    for kind in (np.float32, np.int32):
        PillowImage.fromarray(noise(20, 20).astype(kind)).save(tmp_path / f"{kind.__name__}.tif")
    names = ["end.png", "sum.png", "missing.png", "text.png", "pipe.png", ".", "n" * 300]
    for name in [*names, "float32.tif", "int32.tif"]:
        with pytest.raises(InputError, match="32-bit" if "32" in name else None):
            read_image(tmp_path / name)

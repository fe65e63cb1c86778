"""Images as arrays: read exactly and within bounds, channels, crops, the letterbox, the mark."""

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

from sonomime.runtime.media import frames
from sonomime.runtime.media.frames import Crop, letterbox
from sonomime.runtime.media.mark import draw_mark
from sonomime.runtime.media.pixels import levels_apart, psnr, to_image, to_planes
from sonomime.runtime.readers.stills import read_image
from sonomime.runtime.support.errors import ConfigError, InputError

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
        for image in (grey, colour):  # 0 to 65535 are 0 to 255
            deep = image.astype(np.uint16) * 257
            (tmp_path / "a.jpg").write_bytes(encoded(deep, suffix))
            assert np.array_equal(read_image(tmp_path / "a.jpg"), image)
    for photometric, expected in ((1, grey), (0, 255 - grey)):  # 0: white is zero
        path = deep_tiff(tmp_path / "deep.tif", grey.astype("<u2") * 257, photometric)
        assert np.array_equal(read_image(path), expected)
    few = PillowImage.fromarray(colour).quantize(16)
    pictures = {
        "rgba": (PillowImage.fromarray(np.dstack([colour, alpha])), on_black(colour, alpha)),
        "la": (PillowImage.fromarray(np.dstack([grey, alpha])), on_black(grey, alpha)),
        "palette": (few, np.array(few.convert("RGB"))),
        "two levels": (PillowImage.fromarray(grey > 127), (grey > 127) * np.uint8(255)),
    }
    for name, (picture, pixels) in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        assert np.array_equal(read_image(tmp_path / f"{name}.png"), pixels), name


def on_black(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    weights = (alpha if image.ndim == 2 else alpha[..., None]) / 255
    return np.rint(image * weights)


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
    names = ["end.png", "sum.png", "missing.png", "text.png", "pipe.png", ".", "n" * 300]
    for name in names:
        with pytest.raises(InputError):
            read_image(tmp_path / name)


# -- arrays ---------------------------------------------------------------------------------------


def test_grey_and_colour() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colour = frames.to_channels(ramp, 3)
    assert colour.shape == (16, 16, 3)
    assert np.array_equal(frames.to_channels(colour, 1), ramp)  # levels stay exact
    assert frames.to_channels(ramp, 1) is ramp
    primaries = 255 * np.eye(3, dtype=np.uint8)[None]
    assert frames.to_channels(primaries, 1).tolist() == [[76, 150, 29]]
    assert frames.has_colour(primaries) and not frames.has_colour(colour)
    assert not frames.has_colour(ramp)


def test_what_is_not_an_image_of_that_size_is_refused() -> None:
    for image in (
        np.zeros((8, 8)), np.zeros((8, 8, 4), np.uint8), np.zeros(8, np.uint8),
        np.zeros((0, 8), np.uint8), [[1]],
    ):  # fmt: skip
        with pytest.raises(InputError):
            frames.to_channels(image, 1)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        frames.to_channels(noise(8, 8), 2)
    _, box = letterbox(noise(30, 40), 64)
    with pytest.raises(InputError, match="64 x 64"):
        box.restore(noise(32, 32))
    with pytest.raises(InputError, match="40 x 30"):
        box.place(noise(31, 40))


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize(("width", "height"), [(1, 700), (64, 64), (101, 77), (640, 3), (699, 700)])
def test_the_letterbox_keeps_the_aspect_ratio_and_leads_back(
    width: int, height: int, size: int
) -> None:
    square, box = letterbox(np.full((height, width), 200, np.uint8), size)
    assert square.shape == (size, size)
    assert max(box.w, box.h) == size
    assert abs(box.w * height - box.h * width) <= max(width, height)  # within half a pixel
    assert abs(2 * box.x + box.w - size) <= 1 and abs(2 * box.y + box.h - size) <= 1
    assert (box.inside(square) == 200).all()
    assert square.sum(dtype=np.int64) == 200 * box.w * box.h  # zero outside
    restored = box.restore(square)
    assert restored.shape == (height, width) and (restored == 200).all()
    # The outer corners of the picture's pixels are the corners of the rectangle.
    corners = np.array([(-0.5, -0.5), (width - 0.5, height - 0.5)])
    ends = np.array([(box.x, box.y), (box.x + box.w, box.y + box.h)]) - 0.5
    assert np.allclose(box.to_square(corners), ends)
    assert np.allclose(box.to_picture(ends), corners)


def test_shrinking_averages_areas_and_the_same_size_changes_nothing() -> None:
    image = (noise(64, 64) // 2).repeat(2, 0).repeat(2, 1)
    assert np.array_equal(letterbox(image, 64)[0], image[::2, ::2])
    for same in (noise(64, 64), noise(64, 64, 3)):
        square, box = letterbox(same, 64)
        assert np.array_equal(square, same) and np.array_equal(box.restore(square), same)


def test_a_bright_pixel_lies_where_its_coordinates_say() -> None:
    image = np.zeros((96, 128), np.uint8)
    image[60, 90] = 255
    square, box = letterbox(image, 256)
    weights = square / square.sum()
    ys, xs = np.mgrid[:256, :256]
    centre = (weights * xs).sum(), (weights * ys).sum()
    assert np.allclose(centre, box.to_square((90, 60)), atol=0.02)


def test_a_crop_is_read_and_cuts() -> None:
    crop = frames.parse_crop(" 3, 4,10,6")
    assert crop == Crop(3, 4, 10, 6)
    assert np.array_equal(frames.crop_image(noise(20, 20), crop), noise(20, 20)[4:10, 3:13])
    for outside in (Crop(0, 0, 21, 5), Crop(5, 16, 5, 5), Crop(-1, 0, 5, 5)):
        with pytest.raises(InputError, match="20 x 20"):
            frames.crop_image(noise(20, 20), outside)
    for text in ("", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,0,4", "-1,0,4,4"):
        with pytest.raises(ConfigError):
            frames.parse_crop(text)


def test_planes_and_how_far_apart() -> None:
    for image in (noise(16, 16), noise(16, 16, 3)):
        planes = to_planes(image)
        assert planes.shape == (1, image.size // 256, 16, 16) and planes.flags.c_contiguous
        assert np.array_equal(planes[0, -1], image[..., -1] if image.ndim == 3 else image)
        back = to_image(planes)
        assert np.array_equal(back, image) and not np.shares_memory(back, image)
    black = np.zeros((4, 4), np.uint8)
    assert psnr(black, black) == np.inf
    assert psnr(black + 1, black) == pytest.approx(48.13, abs=0.01)
    assert levels_apart(black, black + 255) == 255


# -- the mark -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height", "box"),
    [
        (8, 8, (7, 7)), (8, 700, (7, 9)), (30, 9, (19, 9)), (64, 64, (55, 9)), (256, 256, (55, 9)),
        (900, 450, (110, 18)), (1024, 1030, (275, 45)),
    ],
)  # fmt: skip
def test_the_mark_grows_with_the_picture_and_does_not_depend_on_what_is_below(
    width: int, height: int, box: tuple[int, int]
) -> None:
    x, y = width - box[0], height - box[1]
    for image in (noise(height, width), noise(height, width, 3)):
        marked = draw_mark(image)
        assert np.array_equal(marked[y:, x:], draw_mark(np.zeros_like(image))[y:, x:])
        assert set(np.unique(marked[y:, x:])) == {0, 255}  # white letters on black
        marked[y:, x:] = image[y:, x:]
        assert np.array_equal(marked, image)
        assert np.array_equal(image, noise(*image.shape)), "it has to stay as it was"


def test_the_whole_word_stands_from_64_pixels_on() -> None:
    letters = draw_mark(np.zeros((64, 64), np.uint8))[-9:, -55:] > 0
    assert not letters[[0, -1]].any() and not letters[:, ::6].any()  # between nine letters
    assert all(letters[:, at + 1 : at + 6].sum() >= 9 for at in range(0, 54, 6))
    assert letters[1, 1:6].tolist() == [False, True, True, True, True]  # S
    assert np.array_equal(letters[:, 19:24], letters[:, 37:42])  # both are T
    for shape, kind in (((6, 6), np.uint8), ((100, 5), np.uint8), ((64, 64), np.float32)):
        with pytest.raises(InputError):
            draw_mark(np.zeros(shape, kind))

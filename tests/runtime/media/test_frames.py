"""Images are read within bounds, and the letterbox leads into the square and back."""

from __future__ import annotations

import struct
import tempfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonomime.runtime.media import frames
from sonomime.runtime.media.file_headers import image_size
from sonomime.runtime.media.frames import Crop, Letterbox, letterbox, read_image
from sonomime.runtime.media.png import png_bytes
from sonomime.runtime.support.errors import ConfigError, InputError

SUFFIXES = [".png", ".bmp", ".tif", ".jpg"]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: np.ndarray, suffix: str) -> bytes:
    bgr = image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])
    return cv2.imencode(suffix, bgr)[1].tobytes()


def header_only(suffix: str, width: int, height: int) -> bytes:
    """A file that claims a size and holds no pixels."""
    if suffix == ".png":
        body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        crc = struct.pack(">I", zlib.crc32(body))
        return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + crc
    if suffix == ".bmp":
        info = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 8, 0, 0, 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info
    if suffix == ".jpg":
        frame = struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00"
        return b"\xff\xd8" + b"\xff\xe0\x00\x04ab" + b"\xff\xff\xc2" + frame + b"\xff\xd9"
    order = ">" if suffix == ".tiff" else "<"
    entries = struct.pack(order + "HHII", 256, 4, 1, width)
    entries += struct.pack(order + "HHII", 257, 4, 1, height)
    magic = b"MM\0*" if order == ">" else b"II*\0"
    return magic + struct.pack(order + "IH", 8, 2) + entries + b"\0" * 4


@pytest.mark.parametrize("suffix", SUFFIXES[:3])
@pytest.mark.parametrize("shape", [(40, 31), (40, 31, 3)])
def test_lossless_files_are_read_exactly(
    tmp_path: Path, suffix: str, shape: tuple[int, ...]
) -> None:
    image = noise(*shape)
    (tmp_path / f"a{suffix}").write_bytes(encoded(image, suffix))
    read = read_image(tmp_path / f"a{suffix}")
    assert np.array_equal(read, image)
    assert read.flags.c_contiguous


def test_content_counts_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(noise(20, 20), ".png"))
    assert np.array_equal(read_image(tmp_path / "a.jpg"), noise(20, 20))


def test_16_bits_keep_their_upper_byte_and_transparency_goes(tmp_path: Path) -> None:
    image = noise(20, 30)
    (tmp_path / "deep.png").write_bytes(encoded(image.astype(np.uint16) << 8 | 77, ".png"))
    assert np.array_equal(read_image(tmp_path / "deep.png"), image)
    colour = noise(20, 30, 3)
    clear = np.dstack([colour[..., ::-1], noise(20, 30, seed=1)])
    (tmp_path / "clear.png").write_bytes(cv2.imencode(".png", clear)[1].tobytes())
    assert np.array_equal(read_image(tmp_path / "clear.png"), colour)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".tiff"])
@pytest.mark.parametrize(
    ("size", "word"),
    [
        ((1, 1), "too small"),
        ((7, 300), "too small"),
        ((20000, 20000), "too large"),
        ((17000, 100), "too large"),
        ((16000, 16000), "too large"),
        ((0, 64), "too small"),
    ],
)
def test_a_size_out_of_bounds_is_refused_before_decoding(
    tmp_path: Path, suffix: str, size: tuple[int, int], word: str
) -> None:
    data = header_only(suffix, *size)
    assert image_size(data) == size
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    with pytest.raises(InputError, match=word) as caught:
        read_image(path)
    assert f"{size[0]} x {size[1]}" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.97])
def test_a_file_that_is_cut_off_is_an_input_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, part: float
) -> None:
    data = encoded(noise(64, 64), suffix)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match="a" + suffix):
        read_image(path)
    assert capfd.readouterr() == ("", "")  # the libraries' own complaints are not shown


def test_missing_text_and_folder_are_input_errors(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    for name in ("missing.png", "text.png", "."):
        with pytest.raises(InputError):
            read_image(tmp_path / name)


@settings(max_examples=150)
@given(data=st.data(), suffix=st.sampled_from(SUFFIXES))
def test_a_mutated_image_is_read_or_refused(data: st.DataObject, suffix: str) -> None:
    content = bytearray(encoded(noise(24, 24), suffix))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) or len(content) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(content)
        try:
            image = read_image(path)
        except InputError as error:
            assert path.name in error.message
        else:
            frames.check_image(image)


def test_grey_of_a_colourless_picture_is_exact() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colour = frames.to_channels(ramp, 3)
    assert colour.shape == (16, 16, 3)
    assert np.array_equal(frames.to_channels(colour, 1), ramp)
    assert frames.to_channels(ramp, 1) is ramp


def test_grey_weighs_colours_by_luma() -> None:
    colour = np.zeros((1, 3, 3), np.uint8)
    colour[0, [0, 1, 2], [0, 1, 2]] = 255
    assert frames.to_channels(colour, 1).tolist() == [[76, 150, 29]]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8)),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros(8, np.uint8),
        np.zeros((0, 8), np.uint8),
        [[1]],
    ],
)
def test_what_is_not_an_image_is_refused(image: object) -> None:
    with pytest.raises(InputError):
        frames.check_image(image)  # type: ignore[arg-type]


def test_channels_are_one_or_three() -> None:
    with pytest.raises(InputError):
        frames.to_channels(np.zeros((8, 8), np.uint8), 2)


@pytest.mark.parametrize("shape", [(256, 256), (256, 256, 3)])
def test_the_models_own_size_passes_unchanged(shape: tuple[int, ...]) -> None:
    image = noise(*shape)
    square, box = letterbox(image, 256)
    assert np.array_equal(square, image)
    assert np.array_equal(box.restore(square), image)


@given(width=st.integers(1, 700), height=st.integers(1, 700), size=st.sampled_from([64, 128, 256]))
def test_the_letterbox_keeps_the_aspect_ratio_and_leads_back(
    width: int, height: int, size: int
) -> None:
    square, box = letterbox(np.full((height, width), 200, np.uint8), size)
    assert square.shape == (size, size)
    assert max(box.w, box.h) == size
    assert abs(box.w * height - box.h * width) <= max(width, height)  # within half a pixel
    assert abs(2 * box.x + box.w - size) <= 1 and abs(2 * box.y + box.h - size) <= 1
    inside = square[box.y : box.y + box.h, box.x : box.x + box.w]
    assert (inside == 200).all()
    assert square.sum(dtype=np.int64) == 200 * inside.size  # zero outside
    restored = box.restore(square)
    assert restored.shape == (height, width)
    assert (restored == 200).all()


def test_shrinking_averages_areas() -> None:
    image = np.kron(noise(64, 64) // 2, np.array([[1, 1], [1, 1]], np.uint8))
    square, _ = letterbox(image, 64)
    assert np.array_equal(square, image[::2, ::2])


@given(
    width=st.integers(8, 900),
    height=st.integers(8, 900),
    point=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_points_follow_the_picture(width: int, height: int, point: tuple[float, float]) -> None:
    box = Letterbox.fit(width, height, 256)
    there = np.array(point) * (width, height) - 0.5
    assert np.allclose(box.to_picture(box.to_square(there)), there, atol=1e-9)
    # The outer corners of the picture's pixels are the corners of the rectangle.
    assert np.allclose(box.to_square((-0.5, -0.5)), (box.x - 0.5, box.y - 0.5))
    far = box.to_square((width - 0.5, height - 0.5))
    assert np.allclose(far, (box.x + box.w - 0.5, box.y + box.h - 0.5))


def test_a_bright_pixel_lies_where_its_coordinates_say() -> None:
    image = np.zeros((96, 128), np.uint8)
    image[60, 90] = 255
    square, box = letterbox(image, 256)
    weights = square.astype(float) / square.sum()
    ys, xs = np.mgrid[:256, :256]
    centre = ((weights * xs).sum(), (weights * ys).sum())
    assert np.allclose(centre, box.to_square((90, 60)), atol=0.02)


def test_another_size_does_not_fit_a_letterbox() -> None:
    _, box = letterbox(noise(30, 40), 64)
    with pytest.raises(InputError, match="64 x 64"):
        box.restore(noise(32, 32))
    with pytest.raises(InputError, match="40 x 30"):
        box.place(noise(31, 40))


def test_a_crop_is_read_and_cuts() -> None:
    crop = frames.parse_crop(" 3, 4,10,6")
    assert crop == Crop(3, 4, 10, 6)
    image = noise(20, 20)
    assert np.array_equal(frames.crop_image(image, crop), image[4:10, 3:13])


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,0,4", "-1,0,4,4", "1.5"]
)
def test_a_crop_that_means_nothing_is_a_usage_error(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        frames.parse_crop(text)
    assert "x,y,w,h" in caught.value.hint


@pytest.mark.parametrize("crop", [Crop(0, 0, 21, 5), Crop(5, 16, 5, 5), Crop(-1, 0, 5, 5)])
def test_a_crop_outside_is_an_input_error(crop: Crop) -> None:
    with pytest.raises(InputError, match="20 x 20"):
        frames.crop_image(noise(20, 20), crop)


@pytest.mark.parametrize("shape", [(20, 31), (20, 31, 3)])
def test_png_bytes_hold_pixels_and_texts(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = noise(*shape)
    data = png_bytes(image, {"title": "Grüße", "comment": "two"})
    (tmp_path / "a.png").write_bytes(data)
    assert np.array_equal(read_image(tmp_path / "a.png"), image)
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        body = data[at + 4 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(body)
        chunks.append(body)
        at += 12 + length
    texts = [chunk[4:] for chunk in chunks if chunk.startswith(b"iTXt")]
    assert texts == ["Title\0\0\0\0\0Grüße".encode(), b"Comment\0\0\0\0\0two"]

"""Images as arrays: channels, crops, and the letterbox into the square and back."""

from __future__ import annotations

import numpy as np
import pytest
from media_files import noise

from sonomime.runtime.media import frames
from sonomime.runtime.media.frames import Crop, letterbox
from sonomime.runtime.media.pixels import levels_apart, psnr, to_image, to_planes
from sonomime.runtime.support.errors import ConfigError, InputError


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

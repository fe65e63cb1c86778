"""The mark reads "SYNTHETIC" on any background and leaves the rest of the picture unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from media_files import noise

from sonomime.runtime.media.mark import draw_mark
from sonomime.runtime.support.errors import InputError


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

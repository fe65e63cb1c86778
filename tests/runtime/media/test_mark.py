"""The mark reads "SYNTHETIC" on any background and leaves the rest of the picture unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from media_files import noise

import sonomime
from sonomime.runtime.media.mark import draw_mark, mark_box, metadata
from sonomime.runtime.support.errors import InputError


@pytest.mark.parametrize(("width", "height"), [(8, 8), (8, 700), (30, 9), (64, 64), (900, 450)])
@pytest.mark.parametrize("colours", [(), (3,)])
def test_the_mark_does_not_depend_on_what_is_below(
    width: int, height: int, colours: tuple[int, ...]
) -> None:
    image = noise(height, width, *colours)
    marked = draw_mark(image)
    assert np.array_equal(image, noise(height, width, *colours)), "it has to stay as it was"
    x, y, w, h = mark_box(width, height)
    assert (x + w, y + h) == (width, height)
    # White letters on black, whatever the background.
    box = marked[y:, x:]
    assert set(np.unique(box)) == {0, 255}
    assert np.array_equal(box, draw_mark(np.zeros_like(image))[y:, x:])
    marked[y:, x:] = image[y:, x:]
    assert np.array_equal(marked, image)


def test_the_whole_word_stands_from_64_pixels_on_and_grows() -> None:
    letters = draw_mark(np.zeros((64, 64), np.uint8))[-9:, -55:] > 0
    assert not letters[[0, -1]].any() and not letters[:, ::6].any()  # between nine letters
    assert all(letters[:, at + 1 : at + 6].sum() >= 9 for at in range(0, 54, 6))
    assert letters[1, 1:6].tolist() == [False, True, True, True, True]  # S
    assert np.array_equal(letters[:, 19:24], letters[:, 37:42])  # both are T
    for side, scale in ((64, 1), (256, 1), (400, 2), (1024, 5)):
        assert mark_box(side, side)[2:] == (55 * scale, 9 * scale)
    for shape, kind in (((6, 6), np.uint8), ((100, 5), np.uint8), ((64, 64), np.float32)):
        with pytest.raises(InputError):
            draw_mark(np.zeros(shape, kind))


def test_the_metadata_says_what_it_is_and_what_it_is_not() -> None:
    texts = metadata()
    assert "Synthetic" in texts["title"] and f"sonomime {sonomime.__version__}" in texts["comment"]
    assert "For training and simulation only; not a medical device." in texts["comment"]

"""The mark reads "SYNTHETIC" on any background and leaves the rest of the picture unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sonomime
from sonomime.runtime.media.mark import draw_mark, mark_box, metadata
from sonomime.runtime.support.errors import InputError


def box_of(image: np.ndarray) -> np.ndarray:
    x, y, w, h = mark_box(image.shape[1], image.shape[0])
    return image[y : y + h, x : x + w]


@given(
    width=st.integers(8, 900),
    height=st.integers(8, 900),
    level=st.integers(0, 255),
    colour=st.booleans(),
)
def test_the_mark_does_not_depend_on_what_is_below(
    width: int, height: int, level: int, colour: bool
) -> None:
    image = np.full((height, width, 3) if colour else (height, width), level, np.uint8)
    before = image.copy()
    marked = draw_mark(image)
    assert np.array_equal(image, before), "the argument has to stay as it was"
    assert marked.shape == image.shape and marked.dtype == np.uint8
    box = box_of(marked)
    # White letters on black, whatever the background.
    assert set(np.unique(box)) == {0, 255}
    dark = draw_mark(np.zeros((height, width), np.uint8))
    assert np.array_equal(box[..., 0] if colour else box, box_of(dark))
    outside = marked.copy()
    box_of(outside)[...] = level
    assert np.array_equal(outside, before)


def test_the_whole_word_stands_from_64_pixels_on() -> None:
    letters = box_of(draw_mark(np.zeros((64, 64), np.uint8))) > 0
    assert letters.shape == (9, 55)
    assert not letters[[0, -1]].any() and not letters[:, ::6].any()  # between nine letters
    assert all(letters[:, at + 1 : at + 6].sum() >= 9 for at in range(0, 54, 6))
    assert letters[1, 1:6].tolist() == [False, True, True, True, True]  # S
    assert np.array_equal(letters[:, 19:24], letters[:, 37:42])  # both are T


def test_the_letters_grow_with_the_picture_and_need_room() -> None:
    for side, scale in ((64, 1), (256, 1), (400, 2), (1024, 5)):
        assert mark_box(side, side)[2:] == (55 * scale, 9 * scale)
    for shape, kind in (((6, 6), np.uint8), ((100, 5), np.uint8), ((64, 64), np.float32)):
        with pytest.raises(InputError):
            draw_mark(np.zeros(shape, kind))


def test_the_metadata_says_what_it_is_and_what_it_is_not() -> None:
    texts = metadata()
    assert "Synthetic" in texts["title"] and f"sonomime {sonomime.__version__}" in texts["comment"]
    assert "For training and simulation only; not a medical device." in texts["comment"]

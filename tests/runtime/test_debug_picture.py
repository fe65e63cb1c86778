"""The picture of an alignment: both pictures, the grid where it is read, landmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sonomime.runtime.debug_picture import HEIGHT, write_debug_picture
from sonomime.runtime.media.frames import read_image
from sonomime.runtime.session import own_places

NONE = (np.empty((0, 2)), np.empty((0, 2)))


def coloured(image: np.ndarray) -> np.ndarray:
    """Where a picture is not grey."""
    return np.ptp(image.astype(int), axis=2) > 20


def test_the_grid_lies_where_it_is_read(tmp_path: Path) -> None:
    """Moved right by a quarter of the picture, its left quarter is free of lines."""
    grid = own_places(8, 8) + np.array([0.5, 0], np.float32)
    pictures = np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.uint8)
    write_debug_picture(tmp_path / "a.png", pictures, grid, NONE, (), 64)
    image = read_image(tmp_path / "a.png")
    assert image.shape[1] == 2 * HEIGHT + 4
    below = image[-HEIGHT:]
    source, reference = coloured(below[:, :HEIGHT]), coloured(below[:, -HEIGHT:])
    first = [int(np.flatnonzero(part.any(axis=0))[0]) for part in (source, reference)]
    assert first == pytest.approx([HEIGHT / 16, HEIGHT / 16 + HEIGHT / 4], abs=3)


def test_landmarks_are_drawn_where_they_are_in_each(tmp_path: Path) -> None:
    pictures = np.full((50, 100), 80, np.uint8), np.full((200, 100), 80, np.uint8)
    places = np.array([[24.5, 24.5], [74.5, 9.5]]), np.array([[49.5, 149.5], [9.5, 19.5]])
    names = ("neck", "Gebärmutter")
    write_debug_picture(tmp_path / "a.png", pictures, own_places(4, 4), places, names, 64)
    image = read_image(tmp_path / "a.png")[-HEIGHT:].astype(int)
    reference = image[:, -HEIGHT // 2 :]
    colours = [tuple(reference[round(y * 3.2), round(x * 3.2)]) for x, y in places[1]]
    assert len(set(colours)) == 2 and all(max(c) == 255 and min(c) < 100 for c in colours)
    source = image[:, : 2 * HEIGHT]
    for (x, y), colour in zip(places[0], colours, strict=True):
        place = round((y + 0.5) * HEIGHT / 50), round((x + 0.5) * HEIGHT / 50)
        assert tuple(source[place]) == colour


@pytest.mark.parametrize("shape", [(8, 4000), (4000, 8), (8, 8)])
def test_pictures_of_any_shape(tmp_path: Path, shape: tuple[int, int]) -> None:
    picture = np.full(shape, 50, np.uint8)
    corner = np.array([[shape[1] - 1.0, 0.0]])
    pair, places = (picture, picture), (corner, corner)
    write_debug_picture(tmp_path / "a.png", pair, own_places(32, 32), places, ("a name",), 64)
    image = read_image(tmp_path / "a.png")
    assert HEIGHT < image.shape[0] < 1000 and 100 < image.shape[1] < 3000
    assert coloured(image).any()

"""The picture of an alignment: both pictures, the grid where it is read, landmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonomime.runtime.debug_picture import HEIGHT, write_debug_picture
from sonomime.runtime.media.frames import read_image
from sonomime.runtime.session import own_places

Draw = Callable[..., Any]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Draw grey pictures of two shapes; the result as whole numbers."""

    def drawn(shapes: Any, grid: Any, landmarks: Any = ((), ()), names: Any = ()) -> Any:
        pictures = tuple(np.full(shape, 50, np.uint8) for shape in shapes)
        places = np.array(landmarks, float).reshape(2, -1, 2)
        write_debug_picture(tmp_path / "a.png", pictures, grid, places, names, 64)
        return read_image(tmp_path / "a.png").astype(int)

    return drawn


def coloured(image: np.ndarray) -> np.ndarray:
    """Where a picture is not grey."""
    return np.ptp(image, axis=2) > 20


def test_the_grid_lies_where_it_is_read(draw: Draw) -> None:
    """Moved right by a quarter of the picture, its left quarter is free of lines."""
    image = draw([(64, 64), (64, 64, 3)], own_places(8, 8) + np.array([0.5, 0], np.float32))
    assert image.shape[1] == 2 * HEIGHT + 4
    below = image[-HEIGHT:]
    source, reference = coloured(below[:, :HEIGHT]), coloured(below[:, -HEIGHT:])
    first = [int(np.flatnonzero(part.any(axis=0))[0]) for part in (source, reference)]
    assert first == pytest.approx([HEIGHT / 16, HEIGHT / 16 + HEIGHT / 4], abs=3)


def test_landmarks_are_drawn_where_they_are_in_each(draw: Draw) -> None:
    places = [(24.5, 24.5), (74.5, 9.5)], [(49.5, 149.5), (9.5, 19.5)]
    names = ("neck", "Gebärmutter")
    image = draw([(50, 100), (200, 100)], own_places(4, 4), places, names)[-HEIGHT:]
    reference = image[:, -HEIGHT // 2 :]
    colours = [tuple(reference[round(y * 3.2), round(x * 3.2)]) for x, y in places[1]]
    assert len(set(colours)) == 2 and all(max(c) == 255 and min(c) < 100 for c in colours)
    source = image[:, : 2 * HEIGHT]
    for (x, y), colour in zip(places[0], colours, strict=True):
        place = round((y + 0.5) * HEIGHT / 50), round((x + 0.5) * HEIGHT / 50)
        assert tuple(source[place]) == colour


def test_pictures_of_any_shape(draw: Draw) -> None:
    shapes = (8, 2000), (2000, 8)
    corners = [[(shape[1] - 1.0, 0.0)] for shape in shapes]
    image = draw(shapes, own_places(32, 32), corners, ("a name",))
    assert HEIGHT < image.shape[0] < 1000 and 100 < image.shape[1] < 3000
    assert coloured(image).any()

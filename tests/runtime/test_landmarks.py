"""How a pair is aligned: by a file, by what the model finds, by the pictures; the drawing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_bundle import blob
from toy_displacement import CELLS, make_displacement_toy

from sonomime.runtime import Animator
from sonomime.runtime.debug_picture import HEIGHT, write_debug_picture
from sonomime.runtime.landmarks import Picture, align_pair, read_landmarks
from sonomime.runtime.media.frames import Crop
from sonomime.runtime.readers.stills import read_image
from sonomime.runtime.session import own_places
from sonomime.runtime.support.errors import ConfigError, InputError

HEADER = "image,keypoint,x,y\n"
PAIR = "source,neck,20,30\nreference,neck,40,31.5\n"
SOURCE, REFERENCE = Picture(blob(64, 0.3, 0)), Picture(blob(80, -0.2, 0))


def write(folder: Path, text: str) -> Path:
    path = folder / "landmarks.csv"
    path.write_text(text, encoding="utf-8")
    return path


def opened(bundle: Path) -> Animator:
    animator = Animator.open(bundle, "cpu", threads=1)
    animator.set_source(SOURCE.image)
    animator.set_reference(REFERENCE.image)
    return animator


@pytest.fixture
def animator(displacement_toy: Path) -> Any:
    with opened(displacement_toy) as animator:
        yield animator


def shift_of(animator: Animator) -> Any:
    """The first cell's, (2,)."""
    return (animator.read("alignment") - own_places(CELLS, CELLS))[0, 0, 0]


def test_a_file_names_each_landmark_in_both_pictures(tmp_path: Path) -> None:
    text = "x,y,keypoint,image\n1,2,b,reference\n3,4,a,source\n\n5,6.5,b,source\n-7,8,a,reference\n"
    both = read_landmarks(write(tmp_path, text))
    assert list(both) == ["a", "b"]
    assert both["b"][0][:2] == (5, 6.5) and both["a"][1][:2] == (-7, 8)
    assert both["b"][0].where.endswith("landmarks.csv:5")


@pytest.mark.parametrize(
    ("text", "crop", "names"),
    [
        ("image,keypoint,x,y,visible\n", None, [":1", "visible"]),
        (HEADER, None, []),
        ("", None, []),
        (HEADER + PAIR + "drving,neck,1,2\n", None, [":4", "drving"]),
        (HEADER + PAIR + "source,,1,2\n", None, [":4"]),
        (HEADER + PAIR + "source,a\x1b[2J,1,2\n", None, [":4", r"'a\x1b[2J'"]),
        (HEADER + PAIR + "source,edge,1,nan\n", None, [":4", "y"]),
        (HEADER + PAIR + "source,edge,one,2\n", None, [":4", "x", "one"]),
        (HEADER + PAIR + "source,neck,1,2\n", None, [":4", ":2", "neck"]),
        (HEADER + PAIR + "source,edge,1,2\nreference,rim,1,2\n", None, [":4", ":5", "edge", "rim"]),
        (HEADER + "source,neck,1\n", None, [":2"]),
        # Outside of its picture.
        (HEADER + "source,edge,64,3\nreference,edge,1,2\n", None, [":2", "'edge'", "64 x 64"]),
        (HEADER + "source,edge,1,2\nreference,edge,3,-1\n", None, [":3", "'edge'", "80 x 80"]),
        (HEADER + PAIR, Crop(30, 0, 64, 64), ["'neck'", "30,0,64,64"]),
    ],
)
def test_a_file_that_cannot_be_used(
    animator: Animator, tmp_path: Path, text: str, crop: Crop | None, names: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        align_pair(animator, write(tmp_path, text), Picture(SOURCE.image, crop), REFERENCE)
    assert "landmarks.csv" in caught.value.message and caught.value.hint
    assert [name for name in names if name not in caught.value.message] == []


def test_a_pair_is_aligned_by_a_file_in_pixels_before_any_crop(
    animator: Animator, tmp_path: Path
) -> None:
    path = write(tmp_path, HEADER + PAIR)
    whole = align_pair(animator, path, SOURCE, REFERENCE)
    assert whole.names == ("neck",) and whole.points[0].tolist() == [[20, 30]]
    expected = (40.5 / 80 - 20.5 / 64) * 2, (32 / 80 - 30.5 / 64) * 2
    assert shift_of(animator) == pytest.approx(expected, abs=1e-6)
    cut = Picture(SOURCE.image, Crop(15, 5, 64, 64)), Picture(REFERENCE.image, Crop(30, 1, 80, 80))
    assert align_pair(animator, path, *cut).points.tolist() == [[[5, 25]], [[10, 30.5]]]


def test_the_model_finds_what_both_pictures_show(animator: Animator) -> None:
    animator.animate(REFERENCE.image)
    state = animator.read("state")
    looked = animator.find_landmarks(SOURCE.image)
    assert [each.name for each in looked] == ["left", "right", "never"]
    assert [each.probability for each in looked] == pytest.approx([1, 0.9, 0])
    assert np.array_equal(animator.read("state"), state), "no frame sees that"
    found = align_pair(animator, "auto", SOURCE, REFERENCE)
    assert found.names == ("left", "right") and "left, right" in found.said
    assert shift_of(animator)[0] == pytest.approx(-0.5, abs=0.01)
    assert found.points[1, 0] == pytest.approx([(-0.4 + 1) * 40 - 0.5, 39.5], abs=1)
    dark = Picture(SOURCE.image // 4)  # found with a probability of .3
    # Of a tall picture the centre of brightness is inside, and what lies aside is in the black.
    tall = Picture(np.full((64, 6), 255, np.uint8))
    for reference in (dark, Picture(np.zeros((50, 60), np.uint8)), tall):
        nothing = align_pair(animator, "auto", SOURCE, reference)
        assert nothing.names == () and nothing.said
        assert (shift_of(animator) == 0).all()


def test_models_that_cannot(toy_bundle: Path, tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + PAIR)
    with opened(make_displacement_toy(tmp_path / "plain", landmarks=())) as plain:
        nothing = align_pair(plain, "auto", SOURCE, REFERENCE)
        assert nothing.names == () and "--landmarks" in nothing.said
        assert align_pair(plain, path, SOURCE, REFERENCE).names == ("neck",)
    with opened(toy_bundle) as keypoints, pytest.raises(ConfigError):
        align_pair(keypoints, path, SOURCE, REFERENCE)


def test_pictures_are_matched_too_if_both_show_something(tmp_path: Path) -> None:
    toy = make_displacement_toy(tmp_path / "sure", landmarks=(), sure=True)
    black, path = Picture(REFERENCE.image // 40), write(tmp_path, HEADER + PAIR)
    with opened(toy) as animator:
        for landmarks, reference, names, pictures in (
            ("auto", REFERENCE, (), True), ("none", REFERENCE, (), False),
            ("auto", black, (), False), (path, black, ("neck",), False),
            (path, REFERENCE, ("neck",), True),
        ):  # fmt: skip
            found = align_pair(animator, landmarks, SOURCE, reference)
            assert (found.names, found.pictures) == (names, pictures)
            assert ("what both pictures show" in found.said) == pictures
            assert (shift_of(animator) != 0).any() == (pictures or bool(names))


# -- the debug picture -----------------------------------------------------------------------------


def draw(folder: Path, shapes: Any, grid: Any, landmarks: Any = ((), ()), names: Any = ()) -> Any:
    """Draw grey pictures of two shapes; the result as whole numbers."""
    pictures = np.full(shapes[0], 50, np.uint8), np.full(shapes[1], 50, np.uint8)
    places = np.array(landmarks, float).reshape(2, -1, 2)
    write_debug_picture(folder / "a.png", pictures, grid, places, names, 64)
    return read_image(folder / "a.png").astype(int)


def test_the_grid_lies_where_it_is_read(tmp_path: Path) -> None:
    """Moved right by a quarter of the picture, its left quarter is free of lines."""
    grid = own_places(8, 8) + np.array([0.5, 0], np.float32)
    image = draw(tmp_path, [(64, 64), (64, 64, 3)], grid)[-HEIGHT:]
    assert image.shape[1] == 2 * HEIGHT + 4
    coloured = np.ptp(image, axis=2).max(axis=0) > 20
    first = [int(coloured[part].argmax()) for part in (slice(HEIGHT), slice(-HEIGHT, None))]
    assert first == pytest.approx([HEIGHT / 16, HEIGHT / 16 + HEIGHT / 4], abs=3)


def test_landmarks_are_drawn_where_they_are_in_each(tmp_path: Path) -> None:
    places = [(24.5, 24.5), (74.5, 9.5)], [(49.5, 149.5), (9.5, 19.5)]
    shapes, names = [(50, 100), (200, 100)], ("neck", "Gebärmutter")
    image = draw(tmp_path, shapes, own_places(4, 4), places, names)[-HEIGHT:]
    shown = image[:, : 2 * HEIGHT], image[:, -HEIGHT // 2 :]
    colours = [
        [tuple(each[round((y + 0.5) * scale), round((x + 0.5) * scale)]) for x, y in where]
        for each, where, scale in zip(shown, places, (HEIGHT / 50, HEIGHT / 200), strict=True)
    ]
    assert colours[0] == colours[1] and len(set(colours[0])) == 2
    assert all(max(c) == 255 and min(c) < 100 for c in colours[0])


def test_pictures_of_any_shape_are_drawn(tmp_path: Path) -> None:
    shapes = (8, 2000), (2000, 8)
    corners = [[(shape[1] - 1.0, 0.0)] for shape in shapes]
    image = draw(tmp_path, shapes, own_places(32, 32), corners, ("a name",))
    assert HEIGHT < image.shape[0] < 1000 and 100 < image.shape[1] < 3000
    assert np.ptp(image, axis=2).max() > 20

"""Frames composed over the source: at its own size, in its colours, as sharp as it is.

tests/training/models/matching/test_generator.py compares them with the model's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from toy_bundle import blob, make_toy_bundle

from sonomime.runtime import Animator
from sonomime.runtime.compose import Composer, black_border, fitted, parse_size
from sonomime.runtime.media.frames import Letterbox
from sonomime.runtime.media.pixels import levels_apart
from sonomime.runtime.session import own_places
from sonomime.runtime.support.errors import ConfigError, InputError

Image = NDArray[np.uint8]

SIZE = 64  # of the model
GRID = SIZE // 4
INSIDE = np.s_[16:-16, 16:-16]


def noise(width: int, height: int, *channels: int) -> Image:
    return np.random.default_rng(0).integers(0, 256, (height, width, *channels), np.uint8)


def compose(picture: Image, x: float = 0, y: float = 0, size: Any = None, gain: Any = 1) -> Image:
    """Read this many of the model's pixels away, by layers that are even."""
    height, width = picture.shape[:2]
    places = own_places(GRID, GRID) + np.float32(2 / SIZE) * np.array((x, y), np.float32)
    even = [np.full((1, 1, GRID, GRID), value, np.float32) for value in (1, 0, 1)]
    even[0] = even[0] * np.array(gain, np.float32).reshape(1, -1, 1, 1)
    composer = Composer(picture, Letterbox.fit(width, height, SIZE), size or (width, height))
    return composer.compose(places, places, *even)


@pytest.mark.parametrize(
    ("width", "height", "channels"),
    [(64, 64, ()), (101, 77, (3,)), (333, 201, ()), (51, 127, ()), (9, 301, ()), (300, 9, (3,))],
)
def test_nothing_moved_is_the_source(width: int, height: int, channels: tuple[int, ...]) -> None:
    picture = noise(width, height, *channels)
    frame = compose(picture)
    assert frame.dtype == np.uint8 and frame.shape == picture.shape
    assert levels_apart(frame, picture) <= 1


@pytest.mark.parametrize(("x", "y"), [(1, 0), (0, -3), (-11, 2)])
def test_whole_pixels_of_the_source_stay_whole(x: int, y: int) -> None:
    picture = noise(256, 192)
    frame = compose(picture, x / 4, y / 4)  # the model has a quarter
    assert levels_apart(frame[INSIDE], np.roll(picture, (-y, -x), (0, 1))[INSIDE]) <= 1


def test_half_pixels_keep_speckle_sharp() -> None:
    picture = cv2.GaussianBlur(noise(256, 256), (0, 0), 1.0)
    shift = np.float32([[1, 0, -0.5], [0, 1, 0]])
    wanted = cv2.warpAffine(picture, shift, (256, 256), flags=cv2.INTER_LANCZOS4)
    assert abs(np.std(compose(picture, 0.5 / 4)[INSIDE]) / np.std(wanted[INSIDE]) - 1) < 0.02


def test_a_mirror_goes_on_where_the_source_ends() -> None:
    picture = cv2.GaussianBlur(noise(256, 256), (0, 0), 2)
    frame = compose(picture, -2)[16:-16]  # 8 of its pixels come in from the left
    mirror = np.hstack([picture[:, 7::-1], picture[:, :-8]])[16:-16]
    assert levels_apart(frame[:, 8:], mirror[:, 8:]) <= 1
    apart = np.abs(frame.astype(int) - mirror)[:, :8].mean()
    assert apart < 0.25 * np.abs(mirror[:, :8].astype(int) - picture[16:-16, :1]).mean()
    for shape in ((96, 256), (256, 96, 3)):  # beside these the model sees black
        even = np.full(shape, 120, np.uint8)
        for x, y in ((0, -4), (0, 4), (-4, 0), (4, 0)):
            assert levels_apart(compose(even, x, y), even) <= 1


def test_colours_are_moved_alike_and_lit_by_their_own_layers() -> None:
    picture = noise(128, 96, 3)
    frame = compose(picture, 1, -0.5, gain=(0.8, 1, 1.2))
    for i, gain in enumerate((0.8, 1, 1.2)):
        alone = compose(np.ascontiguousarray(picture[..., i]), 1, -0.5, gain=gain)
        assert levels_apart(frame[..., i], alone) <= 1


@pytest.mark.parametrize("size", [(64, 48), (200, 150)])
def test_another_size_than_the_source_s(size: tuple[int, int]) -> None:
    picture = cv2.GaussianBlur(noise(128, 96), (0, 0), 3)
    frame = compose(picture, 2, 1, size)
    assert frame.shape == size[::-1]
    back = cv2.resize(frame, (128, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(back.astype(int) - compose(picture, 2, 1))[8:-8, 8:-8].mean() < 1.5


# -- of an Animator -------------------------------------------------------------------------------


@pytest.fixture
def animator(tmp_path: Path) -> Any:
    with Animator.open(make_toy_bundle(tmp_path / "toy", layers=True), threads=1) as opened:
        yield opened


def wide(x: float) -> Image:
    return blob(400, x, 0, height=300)


def fan(dark_below: int = 200) -> Image:
    """Speckle in a sector of 160 x 200 pixels, or in all of the picture."""
    image = cv2.GaussianBlur(noise(200, 160), (0, 0), 1) // 2 + 60
    image[dark_below:] = 3
    return image


def test_what_is_black_beside_a_sector_stays_black(animator: Animator) -> None:
    rows, columns = np.mgrid[:160, :200]
    outside = np.abs(columns - 99.5) > 30 + 0.5 * rows
    sector = np.where(outside, 2, fan()).astype(np.uint8)
    border = black_border(sector)
    assert border is not None
    assert border[outside].mean() > 0.9 and not border[~outside].any()
    assert black_border(fan()) is None
    assert black_border(fan(dark_below=80)) is None, "dark tissue may move"
    animator.set_source(sector)
    animator.animate(blob(64, -0.5, 0))
    animator.animate(blob(64, 0.1, 0))
    for size in ((200, 160), (100, 80)):
        frame = animator.compose(size)
        still = cv2.resize(sector, size, interpolation=cv2.INTER_AREA)
        kept = cv2.resize(border, size, interpolation=cv2.INTER_AREA) == 1
        assert np.array_equal(frame[kept], still[kept]) and levels_apart(frame, still) > 40


def test_the_last_frame_at_any_size(animator: Animator, toy_bundle: Path) -> None:
    for picture in (wide(0), wide(0.1)):  # the last frame was of another picture
        animator.set_source(picture)
        picture[:] = 0  # a copy is kept
        with pytest.raises(InputError):
            animator.compose()
        animator.animate(blob(64, -0.3, 0))
    assert levels_apart(animator.compose(), wide(0.1)) <= 1
    made = animator.animate(blob(64, -0.1, 0))
    source = animator.compose()
    assert source.shape == (300, 400)
    assert levels_apart(source, wide(0.3)) <= 4
    model = animator.compose("model")
    assert model.shape == (48, 64)
    assert levels_apart(model, animator.letterbox.inside(made)) <= 4
    assert animator.compose((201, 150)).shape == (150, 201), "a pixel is rounding"
    assert np.array_equal(animator.compose(), source), "and back"
    frame = animator.animate(blob(64, 0.2, 0), size=(200, 150))
    assert np.array_equal(frame, animator.compose((200, 150)))
    with pytest.raises(ConfigError):
        animator.animate(blob(64, 0, 0), size="source", out=np.empty((64, 64), np.uint8))
    with Animator.open(toy_bundle, threads=1) as plain:
        plain.set_source(wide(0))
        plain.animate(blob(64, 0, 0))
        with pytest.raises(ConfigError):
            plain.compose("model")  # there are no layers


@pytest.mark.parametrize(("model", "source"), [(1, 3), (3, 1), (3, 3)])
def test_colours_of_source_and_model(tmp_path: Path, model: int, source: int) -> None:
    bundle = make_toy_bundle(tmp_path / "toy", channels=model, layers=True)
    picture = blob(400, 0, 0, channels=source, height=300)
    with Animator.open(bundle, threads=1) as animator:
        animator.set_source(picture)
        assert animator.animate(blob(64, 0, 0)).ndim == (2 if model == 1 else 3)
        colours = picture if source == 3 else np.repeat(picture[..., None], 3, axis=2)
        assert levels_apart(animator.compose(), colours) <= 1


def test_sizes_that_are_refused_or_read(animator: Animator) -> None:
    animator.set_source(wide(0))
    animator.animate(blob(64, 0, 0))
    state = animator.read("state")
    sizes: list[tuple[Any, str]] = [
        ((400, 400), "400x300"), ((4000, 3000), "1920x1440"), ((4, 3), ""), ((400, 302), ""),
        ("large", ""), (300, ""), ((1,), ""),
    ]  # fmt: skip
    for size, hint in sizes:
        with pytest.raises(ConfigError) as caught:
            animator.compose(size)
        assert hint in caught.value.hint, "a size that fits"
        with pytest.raises(ConfigError):
            animator.animate(blob(64, 0.1, 0), size=size)
    assert np.array_equal(animator.read("state"), state), "before any stage has run"
    assert [parse_size(text) for text in ("source", "800x600")] == ["source", (800, 600)]
    for text in ("", "800", "800x", "-8x6", "8.5x6", "9" * 5000):
        with pytest.raises(ConfigError):
            parse_size(text)
    assert fitted(3000, 10, 100, 100) == (100, 1)

"""Frames composed over the source: at its own size, in its colours, as sharp as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from toy_bundle import blob, make_toy_bundle

from sonomime.runtime import Animator
from sonomime.runtime.compose import Composer, fitted, parse_size
from sonomime.runtime.media.frames import Letterbox
from sonomime.runtime.media.pixels import levels_apart
from sonomime.runtime.session import own_places
from sonomime.runtime.support.errors import ConfigError, InputError

Image = NDArray[np.uint8]

SIZE = 64  # of the model
GRID = SIZE // 4


def noise(width: int, height: int, *channels: int) -> Image:
    return np.random.default_rng(0).integers(0, 256, (height, width, *channels), np.uint8)


def composer(picture: Image, size: tuple[int, int] | None = None) -> Composer:
    height, width = picture.shape[:2]
    return Composer(picture, Letterbox.fit(width, height, SIZE), size or (width, height))


def layers(shift: tuple[float, float] = (0, 0), **levels: float) -> list[NDArray[np.float32]]:
    """A place read this many of the model's pixels away, (x, y), and even layers."""
    places = own_places(GRID, GRID) + np.float32(2 / SIZE) * np.array(shift, np.float32)
    values = {"gain": 1.0, "offset": 0.0, "gate": 1.0} | levels
    even = [np.full((1, 1, GRID, GRID), value, np.float32) for value in values.values()]
    return [places, places, *even]


@pytest.mark.parametrize(
    ("width", "height", "channels"),
    [(64, 64, ()), (101, 77, (3,)), (333, 201, ()), (51, 127, ()), (9, 301, ()), (300, 9, (3,))],
)
def test_nothing_moved_is_the_source(width: int, height: int, channels: tuple[int, ...]) -> None:
    picture = noise(width, height, *channels)
    frame = composer(picture).compose(*layers())
    assert frame.dtype == np.uint8 and frame.shape == picture.shape
    assert levels_apart(frame, picture) <= 1


@pytest.mark.parametrize(("x", "y"), [(1, 0), (0, -3), (-11, 2)])
def test_whole_pixels_of_the_source_stay_whole(x: int, y: int) -> None:
    picture = noise(256, 192)
    inside = np.s_[16:-16, 16:-16]
    frame = composer(picture).compose(*layers((x / 4, y / 4)))  # the model has a quarter
    assert levels_apart(frame[inside], np.roll(picture, (-y, -x), (0, 1))[inside]) <= 1


def test_half_pixels_keep_speckle_sharp() -> None:
    picture = cv2.GaussianBlur(noise(256, 256), (0, 0), 1.0)
    frame = composer(picture).compose(*layers((0.5 / 4, 0)))
    shift = np.float32([[1, 0, -0.5], [0, 1, 0]])
    wanted = cv2.warpAffine(picture, shift, (256, 256), flags=cv2.INTER_LANCZOS4)
    inside = np.s_[16:-16, 16:-16]
    assert abs(np.std(frame[inside]) / np.std(wanted[inside]) - 1) < 0.02


def test_the_low_pass_moves_on_its_own() -> None:
    """A ramp has no texture."""
    picture = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    (moved, *_), (_, *still) = layers((4, 0)), layers()
    frame = composer(picture).compose(moved, *still)[64:-64, 64:-64]
    assert levels_apart(frame, picture[64:-64, 64:-64] + 16) <= 1  # the model has a quarter


def test_a_mirror_goes_on_where_the_source_ends() -> None:
    picture = cv2.GaussianBlur(noise(256, 256), (0, 0), 2)
    frame = composer(picture).compose(*layers((-2, 0)))  # 8 of its pixels come in from the left
    mirror = np.hstack([picture[:, 7::-1], picture[:, :-8]])
    inside = np.s_[16:-16]
    assert levels_apart(frame[inside, 8:], mirror[inside, 8:]) <= 1
    apart = np.abs(frame.astype(int) - mirror)[inside, :8].mean()
    assert apart < 0.25 * np.abs(mirror[inside, :8].astype(int) - picture[inside, :1]).mean()


@pytest.mark.parametrize("shape", [(96, 256), (256, 96, 3)])
def test_no_black_is_drawn_in_from_beside_the_picture(shape: tuple[int, ...]) -> None:
    picture = np.full(shape, 120, np.uint8)
    for shift in ((0, -4), (0, 4), (-4, 0), (4, 0)):
        assert levels_apart(composer(picture).compose(*layers(shift)), picture) <= 1


def test_gain_offset_and_gate() -> None:
    picture = np.full((192, 256), 100, np.uint8)
    even = np.s_[40:-40, 40:-40]  # away from the letterbox, where the texture is not 0
    lit = composer(picture).compose(*layers(gain=1.5, offset=-0.1))[even]
    assert levels_apart(lit, np.full_like(lit, 125)) <= 1  # 150 - 25.5
    assert (composer(picture).compose(*layers(offset=1.0))[even] == 255).all()
    texture = cv2.GaussianBlur(noise(256, 192), (0, 0), 0.8)
    halved = composer(texture).compose(*layers(gate=0.5))
    halved, whole = halved[even].astype(float), texture[even].astype(float)
    fine = [np.std(x - cv2.GaussianBlur(x, (0, 0), 2)) for x in (halved, whole)]
    assert fine[0] / fine[1] == pytest.approx(0.5, abs=0.05)


def test_colours_are_moved_alike_and_lit_by_their_own_layers() -> None:
    picture = noise(128, 96, 3)
    lit = layers((1, -0.5), gain=0.8, offset=0.05, gate=0.9)
    frame = composer(picture).compose(*lit)
    for i in range(3):
        alone = composer(np.ascontiguousarray(picture[..., i])).compose(*lit)
        assert levels_apart(frame[..., i], alone) <= 1
    places, _, gain, offset, gate = layers()
    gains = np.concatenate([gain, 2 * gain, 0 * gain], axis=1)
    even = composer(np.full((64, 64, 3), 100, np.uint8))
    frame = even.compose(places, places, gains, offset, gate)
    assert frame[32, 32].tolist() == [100, 200, 0]


@pytest.mark.parametrize("size", [(64, 48), (200, 150)])
def test_another_size_than_the_source_s(size: tuple[int, int]) -> None:
    picture = cv2.GaussianBlur(noise(128, 96), (0, 0), 3)
    frame = composer(picture, size).compose(*layers((2, 1)))
    assert frame.shape == size[::-1]
    back = cv2.resize(frame, (128, 96), interpolation=cv2.INTER_AREA)
    wanted = composer(picture).compose(*layers((2, 1)))
    assert np.abs(back.astype(int) - wanted)[8:-8, 8:-8].mean() < 1.5


# -- of an Animator -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_bundle(tmp_path_factory.mktemp("bundles") / "layered", layers=True)


@pytest.fixture
def animator(layered: Path) -> Iterator[Animator]:
    with Animator.open(layered, threads=1) as opened:
        yield opened


def wide(x: float) -> Image:
    return blob(400, x, 0, height=300)


def test_the_last_frame_at_any_size(animator: Animator) -> None:
    picture = wide(0.1)
    animator.set_source(picture)
    picture[:] = 0  # a copy is kept
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


@pytest.mark.parametrize(("model", "source"), [(1, 3), (3, 1), (3, 3)])
def test_colours_of_source_and_model(tmp_path: Path, model: int, source: int) -> None:
    bundle = make_toy_bundle(tmp_path / "toy", channels=model, layers=True)
    picture = blob(400, 0, 0, channels=source, height=300)
    with Animator.open(bundle, threads=1) as animator:
        animator.set_source(picture)
        assert animator.animate(blob(64, 0, 0)).ndim == (2 if model == 1 else 3)
        colours = picture if source == 3 else np.repeat(picture[..., None], 3, axis=2)
        assert levels_apart(animator.compose(), colours) <= 1


def test_without_a_frame_or_layers_there_is_nothing_to_compose(
    animator: Animator, toy_bundle: Path
) -> None:
    for picture in (wide(0), wide(0.1)):  # the last frame was of another picture
        animator.set_source(picture)
        with pytest.raises(InputError):
            animator.compose()
        animator.animate(blob(64, 0, 0))
    with Animator.open(toy_bundle, threads=1) as plain:
        plain.set_source(wide(0))
        plain.animate(blob(64, 0, 0))
        with pytest.raises(ConfigError):
            plain.compose("model")


@pytest.mark.parametrize(
    ("size", "hint"),
    [
        ((400, 400), "400x300"), ((4000, 3000), "1920x1440"), ((4, 3), ""), ((400, 302), ""),
        ("large", ""), (300, ""), ((1,), ""),
    ],
)  # fmt: skip
def test_sizes_that_are_refused(animator: Animator, size: Any, hint: str) -> None:
    animator.set_source(wide(0))
    animator.animate(blob(64, 0, 0))
    before = animator.session.read("state")
    with pytest.raises(ConfigError) as caught:
        animator.compose(size)
    assert hint in caught.value.hint, "a size that fits"
    with pytest.raises(ConfigError):
        animator.animate(blob(64, 0.1, 0), size=size)
    assert np.array_equal(animator.session.read("state"), before), "before any stage has run"


def test_sizes_that_are_read() -> None:
    assert [parse_size(text) for text in ("source", "800x600")] == ["source", (800, 600)]
    for text in ("", "800", "800x", "-8x6", "8.5x6", "9" * 5000):
        with pytest.raises(ConfigError):
            parse_size(text)
    assert fitted(3000, 10, 100, 100) == (100, 1)

"""The kernels that compose a frame, against `Composer`, which does it by OpenCV."""

from __future__ import annotations

import math

import host_kernels
import numpy as np
import pytest
import torch
from composed_cases import LEVELS, smooth_layers, speckle
from host_kernels import INVALID_VALUE

from sonomime.benchmarks.gpu.kernels import Kernels
from sonomime.runtime.compose import Composer, enlarge
from sonomime.runtime.media.frames import Letterbox
from sonomime.runtime.media.pixels import levels_apart
from sonomime.runtime.session import own_places

SIZE = 64  # of the model


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize(
    ("width", "height"),
    [(64, 64), (80, 60), (60, 80), (101, 77), (222, 134), (51, 127), (40, 31), (9, 201)],
)
def test_frames_are_opencv_s(
    kernels: Kernels, width: int, height: int, channels: tuple[int, ...]
) -> None:
    picture, box = speckle(width, height, *channels), Letterbox.fit(width, height, SIZE)
    source = enlarge(picture, box, (width, height))
    composer = Composer(picture, box, (width, height))
    for seed, grid in enumerate(((16, 16), (64, 64), (12, 20))):
        layers = smooth_layers(*grid, 3 if channels else 1, seed)
        found = host_kernels.compose_frame(kernels, source, layers)
        wanted = composer.compose(*layers)
        assert levels_apart(found, wanted) <= LEVELS
        assert wanted.std() > 20


@pytest.mark.parametrize("size", [(60, 45), (160, 120), (31, 23)])
def test_another_size_than_the_source_s(kernels: Kernels, size: tuple[int, int]) -> None:
    picture, box = speckle(120, 90), Letterbox.fit(120, 90, SIZE)
    layers = smooth_layers(16, 16)
    found = host_kernels.compose_frame(kernels, enlarge(picture, box, size), layers)
    assert levels_apart(found, Composer(picture, box, size).compose(*layers)) <= LEVELS


def test_nothing_moved_is_the_source(kernels: Kernels) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (75, 100, 3), np.uint8)
    even = [np.full((1, 1, 16, 16), value, np.float32) for value in (1, 0, 1)]
    places = own_places(16, 16)
    source = enlarge(noise, Letterbox.fit(100, 75, SIZE), (100, 75))
    found = host_kernels.compose_frame(kernels, source, [places, places, *even])
    assert levels_apart(found, noise) <= 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30, -1e30])
@pytest.mark.parametrize("which", range(5))
def test_layers_that_make_no_sense(kernels: Kernels, bad: float, which: int) -> None:
    """They spoil what lies around them, black where it is not a number, and reach no other memory
    than the picture's."""
    picture, box = speckle(100, 75), Letterbox.fit(100, 75, SIZE)
    source, layers = enlarge(picture, box, (100, 75)), smooth_layers(16, 16)
    before = host_kernels.compose_frame(kernels, source, layers)
    layers[which] = layers[which].copy()
    layers[which][0][(8, 8, 0) if which < 2 else (0, 8, 8)] = bad
    found = host_kernels.compose_frame(kernels, source, layers)
    spoilt = np.zeros((75, 100), bool)
    spoilt[28:53, 40:65] = True  # three cells of the layers, of 6 pixels each, around it
    assert np.array_equal(found[~spoilt], before[~spoilt])
    assert not math.isnan(bad) or (found[spoilt] == 0).sum() > 50


def test_arguments_that_make_no_sense(kernels: Kernels) -> None:
    """Status 1 (cudaErrorInvalidValue), and nothing is written."""
    floats, frame = torch.zeros(4096), torch.full((4096,), 5, dtype=torch.uint8)
    f, o = floats.data_ptr(), frame.data_ptr()
    names = (
        "channels", "map_height", "map_width", "gain", "offset", "gate", "size", "box_x", "box_y",
        "box_width", "box_height", "height", "width", "above", "left", "picture_height",
        "picture_width",
    )  # fmt: skip
    sizes = (3, 4, 4, 3, 1, 1, 8, 0, 1, 8, 6, 6, 8, 1, 0, 24, 24)
    given = [f] * 8 + [o, *sizes, None]
    launch = kernels.library.sonomime_compose_frame
    assert launch(*given) == 0
    frame.fill_(5)
    for i in range(9):
        assert launch(*given[:i], None, *given[i + 1 :]) == INVALID_VALUE, i
    wrong = {
        "channels": (0, 1, 2, 4, -3), "map_height": (0, -4, 2**29), "map_width": (0, 2**31 - 1),
        "gain": (0, 2), "offset": (0, 4), "gate": (2, -1), "size": (0, 1, 7, 2**16, 2**31 - 1),
        "box_x": (-1, 1, 2**31 - 1), "box_y": (-1, 3), "box_width": (0, 9, 2**31 - 1),
        "box_height": (0, 8), "height": (0, 8, 2**30), "width": (0, 9), "above": (-1, 3),
        "left": (-1, 1, 2**31 - 1), "picture_height": (0, 20, 2**25),
        "picture_width": (0, 23, 2**25),
    }  # fmt: skip
    assert wrong.keys() == set(names)
    for name, values in wrong.items():
        index = 9 + names.index(name)
        for value in values:
            changed = [*given[:index], value, *given[index + 1 :]]
            assert launch(*changed) == INVALID_VALUE, (name, value)
    assert (frame == 5).all()

"""The kernels that compose a frame, against `Composer`, which does it by OpenCV."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from composed_cases import LEVELS, smooth_layers, speckle
from host_kernels import INVALID_VALUE, Checked

from sonomime.runtime.compose import Composer, enlarge
from sonomime.runtime.media.frames import Letterbox
from sonomime.runtime.media.pixels import levels_apart

SIZE = 64  # of the model
ON_A_GPU = pytest.param((1920, 1080), marks=pytest.mark.gpu)


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("shape", [(64, 64), (101, 77), (51, 127), (40, 31), (9, 201), ON_A_GPU])
def test_frames_are_opencv_s(
    kernels: Checked, shape: tuple[int, int], channels: tuple[int, ...]
) -> None:
    picture, box = speckle(*shape, *channels), Letterbox.fit(*shape, SIZE)
    for seed, grid in enumerate(((16, 16), (64, 64), (12, 20))):
        size = shape if seed else (60, 45)  # another one than the source's
        layers = smooth_layers(*grid, 3 if channels else 1, seed)
        found = kernels.compose_frame(enlarge(picture, box, size), layers)
        wanted = Composer(picture, box, size).compose(*layers)
        assert levels_apart(found, wanted) <= LEVELS
        assert wanted.std() > 10


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30, -1e30])
def test_layers_that_make_no_sense(kernels: Checked, bad: float) -> None:
    """They spoil what lies around them, black where it is not a number, and reach no other memory
    than the picture's."""
    picture, box = speckle(100, 75), Letterbox.fit(100, 75, SIZE)
    source = enlarge(picture, box, (100, 75))
    before = kernels.compose_frame(source, smooth_layers(16, 16))
    for which in range(5):
        layers = smooth_layers(16, 16)
        layers[which][0][(8, 8, 0) if which < 2 else (0, 8, 8)] = bad
        found = kernels.compose_frame(source, layers)
        spoilt = np.zeros((75, 100), bool)
        spoilt[28:53, 40:65] = True  # three cells of the layers, of 6 pixels each, around it
        assert np.array_equal(found[~spoilt], before[~spoilt])
        assert not math.isnan(bad) or (found[spoilt] == 0).sum() > 50


def test_arguments_that_make_no_sense(kernels: Checked) -> None:
    """Status 1 (cudaErrorInvalidValue), and nothing is written."""
    floats, frame = (
        torch.full((4096,), value, dtype=dtype, device=kernels.device)
        for value, dtype in ((0, torch.float32), (5, torch.uint8))
    )
    # Each argument after the pointers: a good value, then bad ones.
    counts = {
        "channels": (3, 0, 1, 2, 4, -3), "map_height": (4, 0, -4, 2**29),
        "map_width": (4, 0, 2**31 - 1), "gain": (3, 0, 2), "offset": (1, 0, 4),
        "gate": (1, 2, -1), "size": (8, 0, 1, 7, 2**16, 2**31 - 1),
        "box_x": (0, -1, 1, 2**31 - 1), "box_y": (1, -1, 3), "box_width": (8, 0, 9, 2**31 - 1),
        "box_height": (6, 0, 8), "height": (6, 0, 8, 2**30), "width": (8, 0, 9),
        "above": (1, -1, 3), "left": (0, -1, 1, 2**31 - 1), "picture_height": (24, 0, 20, 2**25),
        "picture_width": (24, 0, 23, 2**25),
    }  # fmt: skip
    good = [floats.data_ptr()] * 8 + [frame.data_ptr(), *(c[0] for c in counts.values()), None]
    launch = kernels.library.sonomime_compose_frame
    assert launch(*good) == 0
    frame.fill_(5)
    wrong = [(i, None) for i in range(9)]
    wrong += [(9 + i, bad) for i, values in enumerate(counts.values()) for bad in values[1:]]
    for index, bad in wrong:
        changed = [*good[:index], bad, *good[index + 1 :]]
        assert launch(*changed) == INVALID_VALUE, (index, bad)
    assert (frame == 5).all()

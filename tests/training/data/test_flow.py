"""Flow, measured and exact: known motions are found, in the convention of the deformation."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from sonomime.training.data.flow import exact_flow, measured_flow
from sonomime.training.data.transforms import IDENTITY, similarity

from .clips import point_grid

Motion = Callable[[np.ndarray], np.ndarray]
GRID = point_grid(64)
EVERYWHERE = np.ones((64, 64), np.bool_)


def texture(size: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 1, (size, size)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    low, high = np.percentile(smooth, [1, 99])
    return np.clip((smooth - low) / (high - low), 0, 1).astype(np.float32)


@pytest.mark.parametrize(("shift", "channels"), [((0, 0), 1), ((6, -4), 3), ((-3, 9), 1)])
def test_a_translation_is_found(shift: tuple[int, int], channels: int) -> None:
    """The driving frame shows at z what the source shows at z + shift pixels."""
    big = texture(288)
    x, y = shift
    images = [big[16 - y : 272 - y, 16 - x : 272 - x], big[16:-16, 16:-16]]
    if channels == 3:
        images = [np.repeat(image[..., None], 3, axis=-1) for image in images]
    flow, valid = measured_flow(*map(np.ascontiguousarray, images))
    assert (flow.shape, flow.dtype, valid.dtype) == ((64, 64, 2), np.float32, np.bool_)
    motion = (flow - GRID) * 128
    assert valid[8:-8, 8:-8].mean() > 0.95
    np.testing.assert_allclose(np.median(motion[valid], axis=0), shift, atol=0.25)
    assert np.abs(motion[valid] - shift).max() < 2


def test_the_number_of_opencvs_threads_is_neither_seen_nor_changed() -> None:
    """Else batches would differ from machine to machine."""
    images = texture(256), np.roll(texture(256), (2, 5), axis=(0, 1))
    before, flows = cv2.getNumThreads(), []
    try:
        for threads in (1, 2, 8):
            cv2.setNumThreads(threads)
            flows.append(measured_flow(*images)[0])
            assert cv2.getNumThreads() == threads
    finally:
        cv2.setNumThreads(before)
    assert all(np.array_equal(flow, flows[0]) for flow in flows)


def test_what_left_the_image_is_black_or_does_not_agree_is_not_valid() -> None:
    driving = texture(256)
    driving[:, 160:] = 0
    source = np.zeros_like(driving)
    source[:, :240] = driving[:, 16:]
    _, valid = measured_flow(source, driving)
    assert not valid[:, :3].any() and not valid[:, 44:].any()
    assert valid[8:-8, 10:36].mean() > 0.9
    _, unrelated = measured_flow(texture(256), texture(256, seed=1))
    assert unrelated.mean() < 0.4


# -- exact -----------------------------------------------------------------------------------------


def affine(degrees: float = 0, scale: float = 1, x: float = 0, y: float = 0) -> Motion:
    angle = np.deg2rad(degrees)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return lambda p: p @ matrix.T + [x, y]


def field(motion: Motion) -> np.ndarray:
    return (motion(GRID) - GRID).astype(np.float32)


STILL = affine()
MOVES: dict[str, tuple[Motion, Motion, float]] = {
    "affine": (affine(8, 0.9, 0.1, -0.07), affine(-6, 1.1, -0.05, 0.02), 1e-3),
    "more than plain iteration bears": (affine(80), affine(-5), 1e-3),
    "stretch": (lambda p: p * [2.5, 0.4], STILL, 1e-3),
}


@pytest.mark.parametrize("name", MOVES)
def test_exact_flow_finds_the_same_tissue(name: str) -> None:
    """Both places, followed to the third frame by the formulas, are one, in pixels of 256."""
    source, driving, bound = MOVES[name]
    for placed in (IDENTITY, similarity(1.15, -9, (0.1, -0.15), flip=True)):
        flow, valid = exact_flow(field(source), field(driving), EVERYWHERE, placed)
        assert (flow.shape, flow.dtype, valid.dtype) == ((64, 64, 2), np.float32, np.bool_)
        x = placed.grid(64).transpose(1, 2, 0).astype(np.float64)
        y = placed.read(flow.reshape(-1, 2).astype(np.float64)).reshape(64, 64, 2)
        miss = np.abs(source(y) - driving(x)).max(axis=-1)[valid] * 128
        assert miss.max() < bound
        assert valid.mean() > (0.3 if name == "stretch" else 0.55)
        assert (np.abs(flow[valid]) <= 1).all() and (np.abs(y[valid]) <= 1).all()


def test_exact_flow_is_valid_inside_of_the_sector_in_both_frames() -> None:
    sector = np.zeros((64, 64), np.bool_)
    sector[:, 20:50] = True
    moved, rest = field(affine(x=5 * 2 / 64)), field(STILL)  # by five cells
    flow, valid = exact_flow(rest, moved, sector, IDENTITY)
    assert valid[:, 20:45].all() and valid.sum() == 64 * 25
    np.testing.assert_allclose(flow[7, 20:45, 0], GRID[0, 25:50, 0], atol=1e-5)
    _, back = exact_flow(moved, rest, sector, IDENTITY)
    assert back[:, 25:50].all() and back.sum() == 64 * 25
    _, zoomed = exact_flow(rest, moved, EVERYWHERE, similarity(2, 0, (0, 0), False))
    assert zoomed[:, :54].all() and not zoomed[:, 54:].any()


def test_folded_tissue_and_wild_fields_have_no_exact_flow_but_finite_numbers() -> None:
    """What is not valid counts nothing in the loss, if it is a number."""
    # Half of the frame comes from one line: what the driving frame shows is nowhere else.
    folded = field(lambda p: np.stack([np.minimum(p[..., 0], 0), p[..., 1]], axis=-1))
    flow, valid = exact_flow(folded, field(STILL), EVERYWHERE, IDENTITY)
    assert valid[:, :30].all() and not valid[:, 34:].any()
    assert np.isfinite(flow).all()
    wild = np.random.default_rng(0).standard_normal((2, 64, 64, 2))
    for scale in (1e3, 1e30):
        flow, valid = exact_flow(*(scale * wild).astype(np.float32), EVERYWHERE, IDENTITY)
        assert np.isfinite(flow).all() and valid.mean() < 0.01

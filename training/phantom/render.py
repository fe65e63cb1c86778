"""A body's pictures: the whole chain for its states, and the clip that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .beam import Beam, ScanConverter, density, grey
from .body import Body
from .motion import Motion, integrate
from .paint import Grid
from .probe import SIZE, FloatArray, Raster, pixel_grid

_MARGIN = 16.0  # mm: what the probe's sway may bring into the sector
_RASTER = 0.3  # mm
_DENSE = 0.75  # mm, grid from which the scatterers' positions are read, bilinearly
_OUT_OF_PLANE = 1.5  # mm, over which speckle decorrelates
_GRAIN = 512  # displacements are kept to 1/512 px, which halves their files
_USUAL_FRAMES = 60  # a manoeuvre's, at the scanner's frame rate


class Shot(NamedTuple):
    """One frame: uint8 (SIZE, SIZE), and displacement float32 (SIZE, SIZE, 2) to the rest pose,
    pixels."""

    image: NDArray[np.uint8]
    displacement: NDArray[np.float32]


def film(
    body: Body,
    states: FloatArray,
    scatterers: int,
    noise: list[int] | None = None,
    numbers: Sequence[int] | None = None,
) -> Iterator[Shot]:
    """Render a clip's states (T, Q) one after the other.

    Args:
        scatterers: their seed.
        noise: seed of the receiver's noise. None for no noise and no slip out of the plane, as in
            a true prediction.
        numbers: render these frames only, in ascending order. Each must come after the two before
            it, which persist in it.
    """
    renderer = Renderer(body, scatterers)
    convert = ScanConverter(renderer.beam)
    slips = body.out_of_plane(len(states)) if noise is not None else np.zeros(len(states))
    greys: list[Raster] = []
    # Where few frames show the whole manoeuvre, those before are further away, and weigh less.
    weights = np.array(body.display.persistence, np.float32)
    weights[1:] *= min(1.0, len(states) / _USUAL_FRAMES)
    weights[0] = 1 - weights[1:].sum()
    for number in range(len(states)) if numbers is None else numbers:
        rng = None if noise is None else np.random.default_rng([*noise, number])
        rest, envelope = renderer.view(states[number], float(slips[number]), rng)
        greys = [grey(envelope, body.display), *greys[:2]]
        shown = sum(w * greys[min(i, len(greys) - 1)] for i, w in enumerate(weights))
        displacement = np.rint((rest - pixel_grid()) * _GRAIN) / _GRAIN
        yield Shot(convert(shown), displacement.astype(np.float32))


class Renderer:
    """Renders a body's states.

    Args:
        seed: of the scatterers; two seeds are two equally valid renderings of one anatomy.
    """

    def __init__(self, body: Body, seed: int) -> None:
        self.body, probe = body, body.probe
        self.beam = Beam(probe)
        side = max(probe.width / 2, -probe.to_mm(np.zeros(2))[0])
        low = np.array([-side - _MARGIN, probe.top - _MARGIN])
        high = np.array([side + _MARGIN, probe.depth + _MARGIN])
        self._nodes = Grid.over(low, high, body.node)
        self._dense = Grid.over(low, high, _DENSE)
        self._to_dense = _splines(self._nodes, self._dense)
        corner = probe.corner
        line = probe.mm_per_pixel * np.arange(SIZE)
        self._to_pixels = _splines(self._nodes, Grid(corner[0] + line, corner[1] + line))
        self.raster = Grid.over(low, high, _RASTER)
        self.tissue = body.tissue(self.raster)
        self._scatter(np.random.default_rng([seed, 2]), low, high)
        rows = np.linspace(0, self.beam.rows - 1, int(probe.depth / 0.8))
        lines = np.linspace(0, self.beam.lines - 1, self.beam.lines // 4)
        depth, angle = np.meshgrid(rows * self.beam.step, lines, indexing="ij")
        angle = (angle - (self.beam.lines - 1) / 2) * self.beam.pitch
        self._shadow_at = probe.from_polar(depth, angle)
        self._shadow_step = float(rows[1] - rows[0]) * self.beam.step

    def _scatter(self, rng: np.random.Generator, low: FloatArray, high: FloatArray) -> None:
        """Draw the scatterers over a rectangle."""
        probe = self.body.probe
        count = int(np.prod(high - low) * density(probe))
        points = low + rng.random((count, 2)) * (high - low)
        # Amplitudes of 1 and -1: with Gaussian ones the strongest scatterer of a cell stands out,
        # and three times as many are needed for fully developed speckle.
        in_plane, beside = 2 * rng.integers(0, 2, (2, count), np.int8).astype(np.float32) - 1
        near = probe.inside(points, -_MARGIN)
        column, row = self.raster.steps(points)
        strength = np.asarray(10 ** (_read(self.tissue.echo, column, row) / 20), np.float32)
        near &= strength > 1e-2
        self._in_plane = (in_plane * strength)[near]
        self._beside = (beside * strength)[near]
        column, row = self._dense.steps(points[near])
        i, j = row.astype(np.int64), column.astype(np.int64)
        width = len(self._dense.x)
        self._corner = i * width + j
        self._weights = row - i, column - j

    def _positions(self, motion: Motion) -> FloatArray:
        """Where the scatterers are, mm (N, 2)."""
        placed = motion.pose.place(integrate(self._nodes.points, motion.velocity))
        # As complex numbers x + iz: one look-up for both coordinates.
        dense = self._to_dense(placed).view(np.complex128).ravel()
        down, right = self._weights
        width, k = len(self._dense.x), self._corner
        corners = [dense.take(k + step) for step in (0, 1, width, width + 1)]
        above = corners[0] + right * (corners[1] - corners[0])
        below = corners[2] + right * (corners[3] - corners[2])
        found = above + down * (below - above)
        return found.view(np.float64).reshape(-1, 2)

    def view(
        self, state: FloatArray, slip: float = 0.0, noise: np.random.Generator | None = None
    ) -> tuple[FloatArray, Raster]:
        """Render a state.

        Args:
            slip: of the image plane, mm.
            noise: draws the receiver's noise; None leaves it out.

        Returns:
            For each pixel the place at rest of what is seen there, float64 (SIZE, SIZE, 2), pixels;
            the envelope, float32 (rows, lines).
        """
        motion = self.body.motion(state)
        nodes = motion.pose.remove(self._nodes.points)
        back = integrate(nodes, motion.velocity, backwards=True)
        display, beam = self.body.display, self.beam
        rho = float(np.exp(-(slip**2) / (2 * _OUT_OF_PLANE**2)))
        amplitude = self._in_plane
        if slip:
            beside = np.float32(np.sqrt(1 - rho**2)) * self._beside
            amplitude = np.asarray(rho * amplitude + beside, np.float32)
        heard = beam.hear(self._positions(motion), amplitude)
        static = None
        if noise is not None:
            parts = noise.standard_normal((beam.rows, beam.lines, 2), dtype=np.float32)
            parts *= np.float32(10 ** (-display.noise / 20) / np.sqrt(2))
            static = parts.view(np.complex64)[..., 0]
        gain = 10 ** (display.gain * beam.depth / 20).astype(np.float32)[:, None]
        envelope = beam.envelope(heard, self._transmission(back), gain, static)
        return self.body.probe.to_pixels(self._to_pixels(back)), envelope

    def _transmission(self, back: FloatArray) -> Raster:
        """The factor of the way there and back to every sample, (rows, lines)."""
        column, row = self._nodes.steps(self._shadow_at)
        rest = _read(back.astype(np.float32), column, row)
        loss = _read(self.tissue.loss, *self.raster.steps(rest.astype(np.float64)))
        total = (np.cumsum(loss, axis=0) - loss / 2) * self._shadow_step
        blurred = cv2.GaussianBlur(total.astype(np.float32), (0, 0), 1.2)
        size = self.beam.lines, self.beam.rows
        fine = cv2.resize(blurred, size, interpolation=cv2.INTER_LINEAR)
        return np.asarray(10 ** (-fine / 20), np.float32)


def _read(raster: Raster, column: FloatArray, row: FloatArray) -> Raster:
    """Bilinear values of a raster (H, W[, C]) at columns and rows of any shape; outside of it the
    border is repeated."""
    shape = column.shape
    # OpenCV's pictures have at most 32767 rows.
    wide = -(-column.size // 4096)
    x, y = (np.resize(v.astype(np.float32).ravel(), (wide, 4096)) for v in (column, row))
    values = cv2.remap(raster, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    tail = raster.shape[2:]
    return values.reshape(-1, *tail)[: column.size].reshape(*shape, *tail)


def _splines(nodes: Grid, wanted: Grid) -> Callable[[FloatArray], FloatArray]:
    """What brings values (rows, columns, 2) on one grid to another, by natural cubic splines."""
    columns, rows = spline_matrix(nodes.x, wanted.x), spline_matrix(nodes.z, wanted.z)
    return lambda values: np.stack([rows @ values[..., i] @ columns.T for i in (0, 1)], axis=-1)


def spline_matrix(nodes: FloatArray, wanted: FloatArray) -> FloatArray:
    """The matrix (wanted, nodes) of natural cubic spline interpolation on equidistant nodes."""
    n, h = len(nodes), nodes[1] - nodes[0]
    value, beside = np.eye(n), np.eye(n, k=1) + np.eye(n, k=-1)
    inner, second = 4 * value + beside, (beside - 2 * value) * (6 / h**2)
    inner[[0, -1]], second[[0, -1]] = value[[0, -1]], 0
    curvature = np.linalg.solve(inner, second)
    left = np.clip(((wanted - nodes[0]) / h).astype(int), 0, n - 2)
    b = ((wanted - nodes[left]) / h)[:, None]
    a = 1 - b
    straight = a * value[left] + b * value[left + 1]
    bend = (a**3 - a) * curvature[left] + (b**3 - b) * curvature[left + 1]
    return straight + h**2 / 6 * bend

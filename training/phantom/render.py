"""From a body's state to a picture, by the convolution model, and the clips that pictures make.

Every scatterer adds its amplitude with the phase of its exact range; the sum is blurred by the
point-spread function (axial pulse, lateral beam), attenuated, given noise, amplified with depth,
and only then is the envelope taken. Sources: Meunier and Bertrand 1995; COLE, Gao et al. 2009.

Convention: polar arrays are (rows, lines): range away from the face, angle from left to right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .body import Body
from .motion import Pose, Velocity, integrate
from .paint import Grid
from .probe import SIZE, FloatArray, Probe, Raster, pixel_grid

Waves = NDArray[np.complex64]

_DENSITY = 17.0  # per mm^2, finest probes: ten in a resolution cell of 0.5 mm x 1.2 mm
_SIGMA = 1 / (2 * np.sqrt(2 * np.log(2)))  # standard deviation of a Gaussian of FWHM 1
_FLANK = 3.0  # beam widths beyond the sector, which the flank of the beam still hears
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
        scatterers, noise: seeds. None for no noise of the receiver and no slip out of the plane, as
            in a true prediction.
        numbers: render these frames only, ascending; each persists in the two after it.
    """
    renderer, display = Renderer(body, scatterers), body.display
    slips = body.out_of_plane(len(states)) if noise is not None else np.zeros(len(states))
    greys: list[Raster] = []
    # Where few frames show the whole manoeuvre, those before are further away, and weigh less.
    weights = np.array(display.persistence, np.float32)
    weights[1:] *= min(1.0, len(states) / _USUAL_FRAMES)
    weights[0] = 1 - weights[1:].sum()
    for number in range(len(states)) if numbers is None else numbers:
        rng = None if noise is None else np.random.default_rng([*noise, number])
        rest, envelope = renderer.view(states[number], float(slips[number]), rng)
        level = 20 * np.log10(np.maximum(envelope, 1e-6))
        grey = np.clip(1 + (level - display.white) / display.dynamic_range, 0, 1) ** display.gamma
        greys = [np.asarray(grey, np.float32), *greys[:2]]
        shown = sum(w * greys[min(i, len(greys) - 1)] for i, w in enumerate(weights))
        displacement = np.rint((rest - pixel_grid()) * _GRAIN) / _GRAIN
        yield Shot(renderer.beam.picture(shown), displacement.astype(np.float32))


class Beam:
    """The polar grid of a probe, finer than a quarter of the PSF's FWHM everywhere, and its PSF."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        # Scatterers per mm^2; where resolution cells are above 1 mm^2 the same number per cell,
        # because more do not improve the speckle, and each takes time in every frame.
        self.density = _DENSITY / max(1.0, probe.axial * probe.lateral)
        self.step = probe.axial / 4.2
        self.rows = int(np.ceil(probe.depth / self.step)) + 1
        self.depth = np.arange(self.rows, dtype=np.float64) * self.step
        length = probe.radius + self.depth
        widest = probe.beam_width(self.depth) / length
        self.pitch = float(np.min(widest)) / 4.2  # radians between lines
        edge = probe.half_angle + _FLANK * float(np.max(widest))
        self.lines = cv2.getOptimalDFTSize(int(np.ceil(2 * edge / self.pitch)) + 1)
        self.angle = (np.arange(self.lines) - (self.lines - 1) / 2) * self.pitch
        sigma = _SIGMA * probe.beam_width(self.depth) / (length * self.pitch)  # in lines
        frequency = np.fft.fftfreq(self.lines)
        self._lateral = np.exp(-2 * (np.pi * sigma[:, None] * frequency) ** 2).astype(np.float32)
        self._axial_sigma = _SIGMA * probe.axial / self.step  # in rows
        # The mean square that tissue of 0 dB gives, so that brightness does not depend on the grid.
        per_cell = self.density * self.step * length * self.pitch
        energy = per_cell / (4 * np.pi * sigma * self._axial_sigma)
        self._level = (1 / np.sqrt(energy)).astype(np.float32)[:, None]
        # Where the samples of a picture twice the size lie.
        line = (np.arange(2 * SIZE) - 0.5) / 2
        mm = probe.to_mm(np.stack(np.meshgrid(line, line), axis=-1))
        depth, angle = probe.to_polar(mm)
        self._line = (angle / self.pitch + (self.lines - 1) / 2).astype(np.float32)
        self._row = (depth / self.step).astype(np.float32)
        self._seen = probe.inside(mm)

    def hear(self, points: FloatArray, amplitude: Raster) -> Waves:
        """The baseband sum of scatterers at points (N, 2), mm, after the lateral beam, (rows,
        lines); amplitude (N,): of mean square 1 in tissue of 0 dB."""
        depth, angle = self.probe.to_polar(points)
        row, line = depth / self.step, angle / self.pitch + (self.lines - 1) / 2
        seen = (row >= 0) & (row < self.rows - 1) & (line >= 0) & (line < self.lines - 1)
        row, line, depth, amplitude = (v[seen] for v in (row, line, depth, amplitude))
        phase = ((-4 * np.pi / self.probe.wavelength) * depth % (2 * np.pi)).astype(np.float32)
        i, j = row.astype(np.int32), line.astype(np.int32)
        down, right = (row - i).astype(np.float32), (line - j).astype(np.float32)
        first = i * self.lines + j
        at = np.concatenate([first, first + 1, first + self.lines, first + self.lines + 1])
        # Shared among the four nearest samples: whole samples would make the speckle flicker.
        share = [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right]
        field = np.empty((self.rows, self.lines), np.complex64)
        for part, wave in ((field.real, np.cos(phase)), (field.imag, np.sin(phase))):
            echo = amplitude * wave
            summed = np.bincount(at, np.concatenate([echo * s for s in share]), field.size)
            part[:] = summed.reshape(field.shape)
        heard = np.fft.ifft(np.fft.fft(field, axis=1) * self._lateral, axis=1)
        return np.asarray(heard, np.complex64)

    def envelope(self, heard: Waves, loss: Raster, gain: Raster, noise: Waves | None) -> Raster:
        """The envelope, float32 (rows, lines), of mean square 1 in unshadowed tissue of 0 dB.

        Args:
            loss: factor of the transmission to each sample and back, (rows, lines).
            gain: depth gain, (rows, 1).
            noise: of mean square 1 where it is to be as strong as tissue at the face.
        """
        field = heard * (loss * self._level)
        if noise is not None:
            # Noise passes the receiver's filter as the echoes do.
            field += noise * np.sqrt(2 * np.sqrt(np.pi) * self._axial_sigma, dtype=np.float32)
        pair = field.view(np.float32).reshape(self.rows, self.lines, 2)
        taps = 2 * int(np.ceil(4 * self._axial_sigma)) + 1
        blurred = cv2.GaussianBlur(pair, (1, taps), 1e-6, None, self._axial_sigma)
        # The last bit of cv2.magnitude depends on where in memory its arrays lie.
        real, imaginary = blurred[..., 0], blurred[..., 1]
        return np.sqrt(real * real + imaginary * imaginary) * gain

    def picture(self, grey: Raster) -> NDArray[np.uint8]:
        """Scan conversion: grey in [0, 1] (rows, lines) -> uint8 (SIZE, SIZE)."""
        fine = cv2.remap(grey, self._line, self._row, cv2.INTER_LINEAR)
        picture = cv2.resize(fine * self._seen, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        return np.asarray(np.clip(np.rint(picture * 255), 0, 255), np.uint8)


class Renderer:
    """Renders a body's states. Two seeds, of the scatterers, are two equally valid renderings."""

    def __init__(self, body: Body, seed: int) -> None:
        self.body, probe = body, body.probe
        self.beam = beam = Beam(probe)
        side = max(probe.width / 2, -probe.to_mm(np.zeros(2))[0])
        low = np.array([-side - _MARGIN, probe.top - _MARGIN])
        high = np.array([side + _MARGIN, probe.depth + _MARGIN])
        self._nodes, self._dense = Grid.over(low, high, body.node), Grid.over(low, high, _DENSE)
        x, z = probe.to_mm(np.stack([np.arange(SIZE)] * 2, axis=-1)).T
        self._to_dense = _splines(self._nodes, self._dense)
        self._to_pixels = _splines(self._nodes, Grid(x, z))
        self._raster = Grid.over(low, high, _RASTER)
        self._tissue = body.tissue(self._raster)
        self._scatter(np.random.default_rng([seed, 2]), low, high)
        rows = np.linspace(0, beam.rows - 1, int(probe.depth / 0.8))
        lines = np.linspace(0, beam.lines - 1, beam.lines // 4)
        depth, angle = np.meshgrid(rows * beam.step, lines, indexing="ij")
        self._shadow_at = probe.from_polar(depth, (angle - (beam.lines - 1) / 2) * beam.pitch)
        self._shadow_step = float(rows[1] - rows[0]) * beam.step

    def _scatter(self, rng: np.random.Generator, low: FloatArray, high: FloatArray) -> None:
        """Draw the scatterers over a rectangle."""
        count = int(np.prod(high - low) * self.beam.density)
        points = low + rng.random((count, 2)) * (high - low)
        # Amplitudes of 1 and -1: with Gaussian ones the strongest scatterer of a cell stands out,
        # and three times as many are needed for fully developed speckle.
        amplitudes = 2 * rng.integers(0, 2, (2, count), np.int8).astype(np.float32) - 1
        echo = _read(self._tissue.echo, *self._raster.steps(points))
        strength = np.asarray(10 ** (echo / 20), np.float32)
        near = self.body.probe.inside(points, -_MARGIN) & (strength > 1e-2)
        self._in_plane, self._beside = (amplitudes * strength)[:, near]
        column, row = self._dense.steps(points[near])
        i, j = row.astype(np.int64), column.astype(np.int64)
        self._corner, self._weights = i * len(self._dense.x) + j, (row - i, column - j)

    def _positions(self, velocity: Velocity, pose: Pose) -> FloatArray:
        """Where the scatterers are, mm (N, 2)."""
        placed = pose.place(integrate(self._nodes.points, velocity))
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
        """Render a state, with the image plane slipped by some mm.

        Returns:
            For each pixel the place at rest of what is seen there, float64 (SIZE, SIZE, 2), pixels;
            the envelope, float32 (rows, lines).
        """
        velocity, pose = self.body.velocity(state), self.body.pose(state)
        back = integrate(pose.remove(self._nodes.points), velocity, backwards=True)
        display, beam = self.body.display, self.beam
        amplitude = self._in_plane
        if slip:
            rho = float(np.exp(-(slip**2) / (2 * _OUT_OF_PLANE**2)))
            beside = np.float32(np.sqrt(1 - rho**2)) * self._beside
            amplitude = np.asarray(rho * amplitude + beside, np.float32)
        heard = beam.hear(self._positions(velocity, pose), amplitude)
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
        rest = _read(back.astype(np.float32), *self._nodes.steps(self._shadow_at))
        loss = _read(self._tissue.loss, *self._raster.steps(rest.astype(np.float64)))
        total = (np.cumsum(loss, axis=0) - loss / 2) * self._shadow_step
        blurred = cv2.GaussianBlur(total.astype(np.float32), (0, 0), 1.2)
        size = self.beam.lines, self.beam.rows
        fine = cv2.resize(blurred, size, interpolation=cv2.INTER_LINEAR)
        return np.asarray(10 ** (-fine / 20), np.float32)


def _read(raster: Raster, column: FloatArray, row: FloatArray) -> Raster:
    """Bilinear values of a raster (H, W[, C]) at columns and rows of any shape; outside of it the
    border is repeated."""
    # OpenCV's pictures have at most 32767 rows.
    wide = -(-column.size // 4096)
    x, y = (np.resize(v.astype(np.float32).ravel(), (wide, 4096)) for v in (column, row))
    values = cv2.remap(raster, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    tail = raster.shape[2:]
    return values.reshape(-1, *tail)[: column.size].reshape(*column.shape, *tail)


def _splines(nodes: Grid, wanted: Grid) -> Callable[[FloatArray], FloatArray]:
    """What brings values (rows, columns, 2) from one grid to another."""
    rows, columns = spline_matrix(nodes.z, wanted.z), spline_matrix(nodes.x, wanted.x).T
    return lambda values: np.stack([rows @ values[..., i] @ columns for i in (0, 1)], axis=-1)


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

"""The phantom's simulator against the physics that it stands for, measured.

A uniform body stands where anatomy is in the way. Bounds: METHOD, "The phantom", and what follows
from the formulas there. The tests hold the simulator to them; the benchmark prints them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...training.evaluation.metrics import high_pass, ncc, to_float
from ...training.phantom.beam import Beam, Echo
from ...training.phantom.display import Display
from ...training.phantom.paint import SOFT, Canvas
from ...training.phantom.probe import Probe, pixel_grid
from ...training.phantom.render import Renderer
from ...training.phantom.tissue_map import Grid, Motion, Pose, spline_matrix

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]

PROBE = Probe(4.5, 50, 80, 85, 0.5, 42, 0.5, 1.2)
REST = np.zeros(2)
SLIP = 1.5
"""mm out of the plane over which speckle decorrelates, of METHOD."""


@dataclass(frozen=True)
class Check:
    """A quantity, what was measured and between which values it has to lie."""

    name: str
    measured: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        return bool(self.low <= self.measured <= self.high)


class Slab:
    """Tissue before a probe, still: as much of a `Body` as rendering asks for.

    Args:
        paint: changes the uniform canvas.
        noise, gain: of the display.
    """

    node = 2.0

    def __init__(
        self,
        probe: Probe = PROBE,
        paint: Callable[[Canvas], Any] = lambda canvas: None,
        noise: float = 55.0,
        gain: float = SOFT,
    ) -> None:
        self.probe, self._paint = probe, paint
        self.display = Display(56, 25, 1.3, noise, gain, (1.0, 0.0, 0.0), 20)

    def tissue(self, grid: Grid) -> Canvas:
        canvas = Canvas(grid)
        self._paint(canvas)
        return canvas

    def motion(self, state: FloatArray) -> Motion:
        return Motion(lambda points, time: np.zeros_like(points), Pose(0.0, np.zeros(2), state))


def speckle() -> list[Check]:
    """Fully developed speckle is Rayleigh: mean over deviation 1.91, deviation in dB 5.57."""
    renderer = Renderer(Slab(), 1)
    beam, envelope = renderer.beam, renderer.view(REST).envelope.astype(float)
    inside = interior(beam)
    sample = (beam.step * (beam.probe.radius + beam.depth) * beam.pitch)[:, None]  # mm^2
    cell = PROBE.axial * PROBE.beam_width(beam.depth)[:, None]
    heard, weight = envelope[inside], np.broadcast_to(sample, envelope.shape)[inside]
    mean = float(np.average(heard, weights=weight))
    deviation = float(np.sqrt(np.average((heard - mean) ** 2, weights=weight)))
    return [
        Check("cells in the uniform tissue", float((sample / cell * inside).sum()), 4000, np.inf),
        Check("envelope SNR in uniform tissue (theory 1.91)", mean / deviation, 1.81, 2.01),
        Check("log speckle deviation, dB (theory 5.57)",
              float((20 * np.log10(heard)).std()), 5.37, 5.77),
    ]  # fmt: skip


def level() -> list[Check]:
    """Tissue of 0 dB has the level 0 dB at any depth, with any probe."""
    found = []
    for axial in (0.5, 0.7):
        for depth, lateral in ((72, 1.1), (95, 1.6)):
            probe = Probe(4.5, 50, 80, depth, 0.5, 0.5 * depth, axial, lateral)
            beam, power = _power(Slab(probe), 3)
            for near in np.linspace(3, depth - 3, 5)[:-1]:
                there = (beam.depth >= near) & (beam.depth < near + (depth - 6) / 4)
                found.append(decibel(power[there][:, in_sector(beam)].mean()))
    worst = max(found, key=abs)
    return [Check("level of uniform tissue, 4 probes x 4 depths, worst, dB", worst, -0.5, 0.5)]


def point() -> list[Check]:
    """A point is as wide as the probe's parameters say, and where it is."""
    beam = Beam(PROBE)
    axial, lateral, along, across = [], [], [], []
    for depth in (10.0, 42.0, 75.0):
        for angle in (0.0, 0.5):
            for down, right in ((0.0, 0.0), (0.5, 0.5), (0.25, 0.75)):  # between samples
                z = (round(depth / beam.step) + down) * beam.step
                line = round(angle / beam.pitch + (beam.lines - 1) / 2) + right
                turned = (line - (beam.lines - 1) / 2) * beam.pitch
                place = PROBE.from_polar(np.array([z]), np.array([turned]))
                envelope = _envelope(beam, beam.hear(Echo(place, np.ones(1, np.float32))))
                i, j = np.unravel_index(int(envelope.argmax()), envelope.shape)
                wide, where = width(envelope[:, j], beam.step)
                axial.append(wide / PROBE.axial)
                along.append(abs(where - z))
                arc = (PROBE.radius + z) * beam.pitch
                wide, where = width(envelope[i], arc)
                lateral.append(wide / float(PROBE.beam_width(np.array(z))))
                across.append(abs(where - line * arc))
    off = [max(values, key=lambda v: abs(v - 1)) for values in (axial, lateral)]
    return [
        Check("width of a point along the beam / the pulse's, worst of 18", off[0], 0.95, 1.05),
        Check("width of a point across / the beam's at that depth, worst", off[1], 0.95, 1.05),
        Check("position of a point, worst error, mm", max(along + across), 0.0, 0.1),
    ]


def phase() -> list[Check]:
    """Moved by a part of the wavelength, an echo turns by twice that part: the way is doubled."""
    sigma, worst = PROBE.axial / 2.3548, 0.0
    for share in (0.125, 0.25, 0.5):
        moved = share * PROBE.wavelength
        expected = np.exp(4j * np.pi * share - moved**2 / (4 * sigma**2))
        worst = max(worst, abs(_coherence(Beam(PROBE), _tissue(2), _tissue(2, moved)) - expected))
    return [Check("phase of a moved echo: error of the correlation, worst of 3", worst, 0.0, 0.05)]


def speckle_moves() -> list[Check]:
    """Speckle is bound to tissue: it moves with it."""
    beam, steps = Beam(PROBE), 20
    shifts = (0.0, steps * beam.step)
    pictures = [_envelope(beam, beam.hear(_tissue(4, shift))) for shift in shifts]
    part = interior(beam, 25.0) & (np.abs(beam.angle) < 0.4)  # no edge of the tissue
    still = ncc(pictures[0], pictures[1], part)
    along = ncc(np.roll(pictures[0], steps, axis=0), pictures[1], part)
    return [
        Check("speckle of tissue moved by 2.4 mm, followed: correlation", along, 0.97, 1.0),
        Check("the same, not followed", still, -0.2, 0.2),
    ]


def slip() -> list[Check]:
    """Out of the plane the echoes' field decorrelates as a Gaussian of 1.5 mm."""
    renderer, heard = Renderer(Slab(), 5), []
    hear = renderer.beam.hear

    def overheard(echo: Echo) -> NDArray[np.complex64]:
        heard.append(hear(echo))
        return heard[-1].copy()

    renderer.beam.hear = overheard  # type: ignore[method-assign]
    inside, worst, slips = interior(renderer.beam), 0.0, (0.0, 0.5, 1.5, 3.0)
    for amount in slips:
        renderer.view(REST, amount)
    rest, *others = (field[inside] for field in heard)
    for amount, field in zip(slips[1:], others, strict=True):
        rho = np.vdot(rest, field) / np.sqrt(np.vdot(rest, rest) * np.vdot(field, field))
        worst = max(worst, abs(complex(rho) - float(np.exp(-(amount**2) / (2 * SLIP**2)))))
    return [Check("slip out of the plane: error of the correlation, worst of 3", worst, 0.0, 0.05)]


def shadows() -> list[Check]:
    """Behind fluid it is brighter by what the fluid does not take; behind bone there is noise."""
    behind_fluid, beside_fluid, _ = _behind(-45.0, 0.02)
    behind_bone, beside_bone, noise = _behind(-10.0, 12.0)
    gained = behind_fluid - beside_fluid - (SOFT - 0.02) * _BLOCK
    return [
        Check("brighter behind 15 mm of fluid by 3.9 dB: error, dB", gained, -0.7, 0.7),
        Check("behind bone: above the receiver's noise, dB", behind_bone - noise, -0.3, 0.3),
        Check("beside that shadow: above it, dB", beside_bone - behind_bone, 20, np.inf),
    ]


def noise() -> list[Check]:
    """The receiver's noise grows with the depth gain."""
    beam, power = _power(Slab(paint=_silent, gain=0.3), 1, noise=2)
    off = [
        decibel(power[np.abs(beam.depth - z) < 5].mean()) - (0.3 * z - 55)
        for z in (10.0, 40.0, 70.0)
    ]
    worst = max(off, key=abs)
    return [Check("noise of -55 dB and its depth gain, 3 depths: error, dB", worst, -0.5, 0.5)]


def other_speckle() -> list[Check]:
    """Two seeds of scatterers have nothing in common but the tissue."""
    views = [Renderer(Slab(), seed) for seed in (1, 2)]
    greys = [to_float(r.convert(r.body.display.grey(r.view(REST).envelope))) for r in views]
    inside = PROBE.inside(PROBE.to_mm(pixel_grid()), 4.0)
    common = ncc(high_pass(greys[0]), high_pass(greys[1]), inside)
    return [Check("speckle of two seeds, uniform tissue: correlation", common, -0.05, 0.05)]


MEASURES: Sequence[Callable[[], list[Check]]] = (
    speckle, level, point, phase, speckle_moves, slip, shadows, noise, other_speckle,
)  # fmt: skip
"""Everything that needs no anatomy."""


def interior(beam: Beam, margin: float = 3.0) -> Mask:
    """The samples (rows, lines) of the sector, mm away from its near and far end."""
    inside = (beam.depth > margin) & (beam.depth < beam.probe.depth - margin)
    return np.asarray(in_sector(beam) & inside[:, None])


def in_sector(beam: Beam) -> Mask:
    """The lines (lines,) of the sector; beside it the beam's flank hears more."""
    return np.asarray(np.abs(beam.angle) < beam.probe.half_angle)


def decibel(ratio: float) -> float:
    return float(10 * np.log10(ratio))


def width(profile: FloatArray, spacing: float) -> tuple[float, float]:
    """Full width at half maximum of a bump and its middle, in units of spacing."""
    near = np.abs(np.arange(len(profile)) - profile.argmax()) < 40
    first, last = np.flatnonzero(near)[[0, -1]]
    # Between samples by a cubic: the peak need not lie on one.
    nodes, fine = np.arange(first, last + 1.0), np.arange(16 * (last - first) + 1) / 16 + first
    bump, fine_spacing = spline_matrix(nodes, fine) @ profile[first : last + 1], spacing / 16
    half, top = bump.max() / 2, int(bump.argmax())
    left = int(np.flatnonzero(bump[:top] < half)[-1])
    right = top + int(np.flatnonzero(bump[top:] < half)[0])
    low = left + (half - bump[left]) / (bump[left + 1] - bump[left])
    high = right - (half - bump[right]) / (bump[right - 1] - bump[right])
    return (high - low) * fine_spacing, ((high + low) / 2 + 16 * first) * fine_spacing


_BLOCK = 15.0  # mm


def _behind(echo: float, loss: float) -> tuple[float, float, float]:
    """dB behind a block, beside it, and of the noise alone there."""

    def paint(canvas: Canvas) -> None:
        x, z = canvas.points[..., 0], canvas.points[..., 1]
        block = (np.abs(x) < 12) & (z > 25) & (z < 25 + _BLOCK)
        canvas.lay(block.astype(np.float64), echo, loss)

    beam, power = _power(Slab(paint=paint), 6, noise=1)
    _, silent = _power(Slab(paint=_silent), 6, noise=1)
    depth, side = beam.depth, beam.angle * 90  # mm at a depth of 40 mm
    rows = (depth > 48) & (depth < 68)
    behind, beside = np.abs(side) < 5, np.abs(side - 35) < 10
    return (
        decibel(power[rows][:, behind].mean()),
        decibel(power[rows][:, beside].mean()),
        decibel(silent[rows][:, behind].mean()),
    )


def _silent(canvas: Canvas) -> None:
    canvas.lay(np.ones(canvas.echo.shape), -100.0)


def _envelope(beam: Beam, heard: NDArray[np.complex64]) -> FloatArray:
    """Of what a beam hears, without loss, gain and noise."""
    flat = np.ones((beam.rows, 1), np.float32)
    return beam.envelope(heard, flat, flat, None).astype(float)


def _power(slab: Slab, seed: int, noise: int | None = None) -> tuple[Beam, FloatArray]:
    """The beam and the power (rows, lines) of a slab seen by it; `noise`: the receiver's seed."""
    renderer = Renderer(slab, seed)
    receiver = None if noise is None else np.random.default_rng(noise)
    envelope = renderer.view(REST, 0.0, receiver).envelope
    return renderer.beam, np.square(envelope, dtype=np.float64)


def _tissue(seed: int, shift: float = 0.0) -> Echo:
    """Scatterers of a part of the sector, moved away from the probe by some mm."""
    rng, count = np.random.default_rng(seed), 30_000
    depth, angle = rng.uniform(20, 60, count) + shift, rng.uniform(-0.5, 0.5, count)
    amplitude = rng.standard_normal(count).astype(np.float32)
    return Echo(PROBE.from_polar(depth, angle), amplitude)


def _coherence(beam: Beam, a: Echo, b: Echo) -> complex:
    """The complex correlation of what two echoes give, from envelopes of their sums."""
    heard = beam.hear(a), beam.hear(b)
    part = interior(beam, 25.0)

    def power(first: complex, second: complex) -> float:
        field = np.asarray(first * heard[0] + second * heard[1], np.complex64)
        return float((_envelope(beam, field)[part] ** 2).mean())

    # <a b*> by polarisation.
    product = power(1, 1) - power(1, -1) + 1j * (power(1, 1j) - power(1, -1j))
    return complex(product / 4 / np.sqrt(power(1, 0) * power(0, 1)))

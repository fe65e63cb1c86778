"""What a heart in its chest is made of: layer over layer on a canvas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from .paint import Canvas, Grid, band, curve, within
from .probe import FloatArray, Raster

_BLOOD = -30.0  # echogenicity at these frequencies; noise and clutter are louder in places
_SOFT = 0.15  # attenuation there and back at 2 to 3.5 MHz, dB per mm
_RIGHT_WALL, _ATRIAL_WALL = 3.8, 2.0


def paint(body: Any, grid: Grid) -> Canvas:
    """The tissue of a `Heart` at the end of diastole."""
    canvas = _HeartCanvas(body, grid)
    canvas.chest()
    canvas.walls()
    canvas.blood()
    canvas.inside()
    canvas.leaflets()
    canvas.window()
    return canvas


class _HeartCanvas(Canvas):
    """A canvas that knows the heart: signed distances to the four cavities (mm, negative inside),
    s and u of every point, and where it lies before the probe."""

    def __init__(self, body: Any, grid: Grid) -> None:
        super().__init__(grid, np.random.default_rng([body.parameters.seed, 1]))
        self.loss[:] = _SOFT
        self.body, self.p, self.frame = body, body.parameters, body.frame
        self.depth, self.angle = body.probe.to_polar(self.points)
        # Nothing in a real body is as round as it is drawn.
        self.distort(1.0, body.rest)
        self.s, self.u = self.frame.coordinates(np.moveaxis(self.points, -1, 0))
        self.level = self.frame.length - self.p.offset  # of the tricuspid valve, along the axis
        self.crux = -(self.frame.half + 0.75 * self.p.septum)  # where septum and valves meet
        self._cavities()

    def _cavities(self) -> None:
        body, p, f, level, crux = self.body, self.p, self.frame, self.level, self.crux
        turn = np.linspace(0, np.pi, 60)
        share = np.clip(0.6 - 0.6 * np.sin(turn), 0, 1)  # apex in the middle of the list
        widest = body.half_width(share) * np.sign(np.cos(turn))
        # From the septal hinge over the apex to the lateral one; a little way into the atrium.
        low = np.linspace(1.0, 0.62, 12)
        left = f.place(low * f.length, -body.half_width(low))
        right = f.place(low[::-1] * f.length, body.half_width(low[::-1]))
        lip = f.place(np.full(2, f.length + 4), np.array([0.85, -0.85]) * f.half)
        line = np.concatenate([left, f.place(share * f.length, -widest), right, lip])
        self.ventricle = self.outline(line)

        # By the septum's right side, back along the free wall, and over the valve.
        w, rim = p.right, crux - p.right
        share = np.array([0.8, 0.6, 0.4, 0.24, 0.17, 0.25, 0.42, 0.62])
        beyond = np.array([0, 0, 0, 0.5, 3, 0.3 * w, 0.58 * w, 0.85 * w])
        s = [level, *(share * f.length), 0.82 * f.length, level - 3, level + 4, level + 4]
        u = [crux, *(self.septum(share) - beyond), rim - 5, rim, rim + 3, crux - 3]
        self.right = self._gap(s, u, 100)

        # The atria from the septum round to the other side.
        share = np.array([0, 0.3, 0.62, 0.93, 1, 0.92, 0.6, 0.3, 0])
        u = f.half * np.array([-1, -1.16, -1.18, -0.66, 0.05, 0.8, 1.28, 1.22, 1])
        self.atrium = self._gap(f.length + p.atria[0] * share, u, 80)
        share = np.array([0.3, 0.65, 0.92, 0.98, 0.8, 0.45, 0.15])
        beyond = np.array([0, 1, 0.3 * w, 0.65 * w, 1.05 * w, 1.2 * w])
        s = [level, *(level + p.atria[1] * share), level - 3]
        u = [crux, *(-1.18 * f.half - 4.5 - beyond), rim - 2, rim]
        self.right_atrium = self._gap(s, u, 80)

    def septum(self, share: FloatArray) -> FloatArray:
        """u of the septum's right side."""
        return -self.body.half_width(share) - self.p.septum

    def _gap(self, s: Sequence[float], u: Sequence[float], count: int) -> FloatArray:
        """Signed distance to a cavity through these points."""
        line = curve(np.stack([s, u], axis=-1), count)
        return self.outline(self.frame.place(line[:, 0], line[:, 1]))

    def chest(self) -> None:
        """Lung and mediastinum round the heart: haze in arcs, weaker to the sides and with depth,
        brighter behind the atria."""
        arcs = self.arcs(1.2)
        ground = -16 + 4 * self.grain(32, 20, 0.3) + 2.5 * arcs
        ground += 2.0 * self.grain(9, 4, 0.0)
        behind = np.minimum(self.atrium, self.right_atrium)
        beyond = np.minimum.reduce([self.ventricle, self.right, behind])
        ground -= 0.16 * np.clip(beyond - 14, 0, 40)
        ground += 8 * np.exp(-np.clip(behind, 0, None) / 9) * _smooth((self.depth - 105) / 30)
        self.echo[:] = ground

    def arcs(self, width: float) -> Raster:
        """Noise stretched across the beam."""
        column = ((self.angle - self.angle.min()) / 0.22 + 2).astype(np.float32)
        row = ((self.depth - self.depth.min()) / width + 2).astype(np.float32)
        grain = self.noise(column, row)
        return grain / max(float(grain.std()), 1e-6)

    def facing(self, gap: FloatArray) -> FloatArray:
        """1 where a wall lies across the beam, 0 where it runs along it."""
        dz, dx = np.gradient(cv2.GaussianBlur(gap, (0, 0), 3.0))
        x, z = self.points[..., 0], self.points[..., 1] + self.body.probe.radius
        lengths = (x * x + z * z) * (dx * dx + dz * dz)
        return np.square(dx * x + dz * z) / np.maximum(lengths, 1e-12)

    def walls(self) -> None:
        """Myocardium, the thin walls, fat in the grooves, and the pericardium about them."""
        p, f, s = self.p, self.frame, self.s
        thick = p.septum + (p.wall - p.septum) * _smooth(0.5 + self.u / 24)
        thick = thick * (1 - 0.3 * _smooth((0.3 - s / f.length) / 0.35))
        thick += 0.4 * self.grain(14, 14, 0.0)
        above = within(s - f.length - 0.5, 3.0)
        outer = np.where(s < f.length + 2, self.ventricle - thick, 99.0)
        right = self.right - _RIGHT_WALL
        atria = self.atrium - _ATRIAL_WALL, self.right_atrium - _ATRIAL_WALL
        # Close the grooves between the chambers, where fat lies.
        shell = cv2.GaussianBlur(np.minimum.reduce([outer, right, *atria]), (0, 0), 4.0)
        self.lay(within(shell, 1.2), -6 + 3 * self.grain(6, 3, 0.1))
        facing = self.facing(shell)
        line = band(shell - 0.8, 1.8, 1.0) * (0.35 + 0.65 * _smooth((s - 0.25 * f.length) / 30))
        patchy = 3.5 * self.grain(14, 5, 1.3)
        self.lay(0.85 * line, (2 + 11 * facing + patchy).astype(np.float32))
        # Fibres: brightest where they lie across the beam.
        tilt = float(np.arctan2(f.along[1], f.along[0]))
        fibres = -2.5 + 7.5 * self.facing(self.ventricle) + 1.8 * self.grain(9, 2.2, tilt)
        fibres += 1.6 * self.grain(14, 14, 0)
        self.lay(above * within(self.ventricle - thick, 1.2), fibres.astype(np.float32))
        cover = 0.9 * within(right, 1.2) * (outer > 0) * above
        self.lay(cover, (-5 + 7 * self.facing(self.right)).astype(np.float32))
        for gap in (self.atrium, self.right_atrium):
            # Thin, and where it runs along the beam it drops out.
            bright = -11 + 15 * self.facing(gap) + 3.5 * self.grain(11, 11, 0.0)
            cover = band(gap - _ATRIAL_WALL / 2, _ATRIAL_WALL, 1.0) * (s > self.level)
            self.lay(0.85 * cover, bright.astype(np.float32))
        # The endocardium and the septum's right side: thin lines.
        for gap in (self.ventricle, self.right):
            self.add(above * band(gap - 0.4, 0.9, 0.8), 2 + 4 * self.facing(gap))

    def blood(self) -> None:
        """In all cavities."""
        rough = 0.5 * self.grain(3.5, 3.5, 0.0)
        trabecular = 0.9 * self.grain(4, 4, 0.0) * (self.s < 0.9 * self.s.max())
        left = np.minimum(self.ventricle, self.atrium) + rough
        right = np.minimum(self.right + trabecular, self.right_atrium + rough)
        for gap in (left, right):
            self.lay(within(gap, 1.2), _BLOOD, 0.8 * _SOFT)

    def inside(self) -> None:
        """Papillary muscle at the lateral wall, moderator band in the right ventricle."""
        f, rng = self.frame, self.rng
        at = rng.uniform(0.42, 0.5)
        root = self.body.half_width(at)
        s = np.array([at * f.length - 6, at * f.length + 3, (at + 0.16) * f.length])
        muscle = self.drawn_stroke(curve(f.place(s, np.array([root + 1, root - 3, root - 5])), 6))
        cover = within(muscle - rng.uniform(1.8, 3.0), 1.5) * rng.uniform(0.3, 0.9)
        self.lay(cover, -6 + 1.5 * self.grain(4, 2, 1.4))
        at = rng.uniform(0.36, 0.44)
        u = self.septum(at) - np.array([0, 0.6 * self.p.right])
        cord = self.drawn_stroke(f.place(np.array([at, at - 0.03]) * f.length, u))
        self.lay(0.7 * within(cord - 1.5, 1.2), -4.0)

    def leaflets(self) -> None:
        """Mitral and tricuspid leaflets, ajar; the annulus that they hang from is bright."""
        f, level, tricuspid = self.frame, self.level, self.body.tricuspid
        middle = self.p.coaptation * f.half
        hinges = (
            (f.length, -f.half, middle - 4.5),
            (f.length, f.half, middle + 4.5),
            (level, self.crux, tricuspid + 5),
            (level - 3, self.crux - self.p.right, tricuspid - 5),
        )
        for base, hinge, tip in hinges:
            s = base - np.array([0, 4.5, 13.5])
            line = curve(f.place(s, np.array([hinge, 0.55 * hinge + 0.45 * tip, tip])), 7)
            gap = self.drawn_stroke(line)
            self.lay(0.9 * within(gap - 0.6, 0.9), 3 + 3 * self.grain(6, 4, 0.2))
            knot = np.hypot(*np.moveaxis(self.points - f.place(base, 1.04 * hinge), -1, 0))
            self.lay(0.7 * within(knot - 2.2, 2.0), 7.0)

    def window(self) -> None:
        """What lies before the heart: chest wall, clutter, and the ribs' and the lung's shadows."""
        p, rng, depth, angle = self.p, self.rng, self.depth, self.angle
        half, apex, arcs = self.body.probe.half_angle, p.apex[1], self.arcs(0.9)
        self.lay(0.9 * within(depth - 0.42 * apex, 3.0), 3 + 4 * arcs)
        self.lay(within(depth - 2.0, 1.0), 10.0)
        haze = p.clutter - 0.33 * np.maximum(depth - 0.5 * apex, 0) + 3 * arcs
        haze += 1.5 * self.grain(20, 20, 0)
        self.echo[:] = 10 * np.log10(10 ** (self.echo / 10) + 10 ** (haze / 10))
        # Shadows start in the chest wall and go all the way down.
        start = within(np.abs(depth - 7) - 3, 1.0)  # 6 mm thick
        for sign, loss in zip((-1, 1), p.window, strict=True):
            edge = half * rng.uniform(0.55, 0.85)
            shade = _smooth((sign * angle - edge) / (0.35 * half))
            self.loss += (start * shade * loss / 6).astype(np.float32)
        for _ in range(rng.integers(1, 4)):
            at, width = rng.uniform(-0.8, 0.8) * half, rng.uniform(0.04, 0.1)
            shade = np.exp(-0.5 * ((angle - at) / width) ** 2)
            self.loss += (start * shade * rng.uniform(2, 6) / 6).astype(np.float32)


def _smooth(t: FloatArray) -> FloatArray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)

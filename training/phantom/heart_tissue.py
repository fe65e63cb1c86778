"""What a heart in its chest is made of: layer over layer on a canvas."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .arrays import FloatArray, Raster
from .heart_shape import HeartShape
from .paint import Canvas, band, curve, within
from .tissue_map import Grid

BLOOD = -30.0
"""Echogenicity of blood at these frequencies; noise and clutter are louder in places."""
SOFT = 0.15
"""Attenuation there and back at 2 to 3.5 MHz, dB per mm."""
_RIGHT_WALL, _ATRIAL_WALL = 3.8, 2.0


class _Chambers(NamedTuple):
    """Signed distances to the four cavities, mm, negative inside; s and u of every point."""

    ventricle: FloatArray
    right: FloatArray
    atrium: FloatArray
    right_atrium: FloatArray
    s: FloatArray
    u: FloatArray


def paint(body: HeartShape, grid: Grid) -> Canvas:
    """The tissue of a subject at the end of diastole."""
    p = body.parameters
    canvas = Canvas(grid)
    canvas.loss[:] = SOFT
    rng = np.random.default_rng([p.seed, 1])
    depth, angle = p.probe.to_polar(canvas.points)
    # Nothing in a real body is as round as it is drawn.
    canvas.distort(rng, 1.0, body.rest)
    chambers = _chambers(body, canvas)
    _chest(canvas, chambers, rng, depth, angle)
    _walls(body, canvas, chambers, rng)
    _blood(canvas, chambers, rng)
    _inside(body, canvas, chambers, rng)
    _leaflets(body, canvas, rng)
    _window(body, canvas, rng, depth, angle)
    return canvas


def _chambers(body: HeartShape, canvas: Canvas) -> _Chambers:
    p, f = body.parameters, body.frame
    turn = np.linspace(0, np.pi, 60)
    share = np.clip(0.6 - 0.6 * np.sin(turn), 0, 1)  # apex in the middle of the list
    widest = body.half_width(share) * np.sign(np.cos(turn))
    # From the septal hinge over the apex to the lateral one; a little way into the atrium.
    low = np.linspace(1.0, 0.62, 12)
    left = f.place(low * f.length, -body.half_width(low))
    right = f.place(low[::-1] * f.length, body.half_width(low[::-1]))
    lip = f.place(np.full(2, f.length + 4), np.array([0.85, -0.85]) * f.half)
    ventricle = np.concatenate([left, f.place(share * f.length, -widest), right, lip])

    left_length, right_length = p.atria
    h, top = f.half, f.length
    atrium = curve(
        [(top, -h), (top + 0.3 * left_length, -1.16 * h), (top + 0.62 * left_length, -1.18 * h),
         (top + 0.93 * left_length, -0.66 * h), (top + left_length, 0.05 * h),
         (top + 0.92 * left_length, 0.8 * h), (top + 0.6 * left_length, 1.28 * h),
         (top + 0.3 * left_length, 1.22 * h), (top, h)], 80,
    )  # fmt: skip

    def outside(at: float) -> float:
        """The septum's right side."""
        return -float(body.half_width(at)) - p.septum

    level = f.length - p.offset
    crux = -(h + 0.75 * p.septum)
    rim = crux - p.right
    w = p.right
    cavity = curve(
        [(level, crux), (0.8 * f.length, outside(0.8)), (0.6 * f.length, outside(0.6)),
         (0.4 * f.length, outside(0.4)), (0.24 * f.length, outside(0.24) - 0.5),
         (0.17 * f.length, outside(0.17) - 3), (0.25 * f.length, outside(0.25) - 0.3 * w),
         (0.42 * f.length, outside(0.42) - 0.58 * w), (0.62 * f.length, outside(0.62) - 0.85 * w),
         (0.82 * f.length, rim - 5), (level - 3, rim), (level + 4, rim + 3), (level + 4, crux - 3)],
        100,
    )  # fmt: skip
    wall = -1.18 * h - 4.5
    right_atrium = curve(
        [(level, crux), (level + 0.3 * right_length, wall), (level + 0.65 * right_length, wall - 1),
         (level + 0.92 * right_length, wall - 0.3 * w),
         (level + 0.98 * right_length, wall - 0.65 * w),
         (level + 0.8 * right_length, wall - 1.05 * w),
         (level + 0.45 * right_length, wall - 1.2 * w),
         (level + 0.15 * right_length, rim - 2), (level - 3, rim)], 80,
    )  # fmt: skip
    s, u = f.coordinates(np.moveaxis(canvas.points, -1, 0))

    def gap(line: FloatArray) -> FloatArray:
        return outline_distance(canvas, f.place(line[:, 0], line[:, 1]))

    ventricle_gap = outline_distance(canvas, ventricle)
    return _Chambers(ventricle_gap, gap(cavity), gap(atrium), gap(right_atrium), s, u)


def outline_distance(canvas: Canvas, line: FloatArray) -> FloatArray:
    """How far a canvas' points are outside of a closed line (n, 2), mm, negative inside."""
    mask = np.zeros(canvas.echo.shape, np.uint8)
    cv2.fillPoly(mask, [_sixteenths(canvas, line)], 1, cv2.LINE_8, 4)
    gap = _distance(1 - mask) - _distance(mask)
    return _bent(canvas, cv2.GaussianBlur(gap, (0, 0), 1.2))


def _stroke(canvas: Canvas, line: FloatArray) -> FloatArray:
    """Like `Canvas.stroke`, to within half a raster step, and many times faster."""
    mask = np.zeros(canvas.echo.shape, np.uint8)
    cv2.polylines(mask, [_sixteenths(canvas, line)], False, 1, 1, cv2.LINE_8, 4)
    return _bent(canvas, _distance(1 - mask))


def _sixteenths(canvas: Canvas, line: FloatArray) -> NDArray[np.int32]:
    """mm (n, 2) -> sixteenths of columns and rows, with which OpenCV draws between them."""
    return np.rint(16 * np.stack(canvas.grid.steps(line), axis=-1)).astype(np.int32)


def _distance(mask: NDArray[np.uint8]) -> Raster:
    """Of every point of a raster from the nearest 0, in steps."""
    gap = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Squares are whole numbers. OpenCV's last bit depends on where in memory the mask lies.
    return np.sqrt(np.rint(np.square(gap, dtype=np.float64))).astype(np.float32)


def _bent(canvas: Canvas, gap: Raster) -> FloatArray:
    """A distance in steps, read where the distorted canvas has its points: mm."""
    column, row = (v.astype(np.float32) for v in canvas.grid.steps(canvas.points))
    read = cv2.remap(gap, column, row, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    return read.astype(np.float64) * float(canvas.grid.x[1] - canvas.grid.x[0])


def _chest(
    canvas: Canvas, c: _Chambers, rng: np.random.Generator, depth: FloatArray, angle: FloatArray
) -> None:
    """Lung and mediastinum round the heart: haze in arcs, weaker to the sides and with depth,
    brighter behind the atria."""
    arcs = _arcs(canvas, rng, depth, angle, 1.2)
    ground = -16 + 4 * canvas.grain(rng, 32, 20, 0.3) + 2.5 * arcs
    ground += 2.0 * canvas.grain(rng, 9, 4, 0.0)
    beyond = np.minimum.reduce([c.ventricle, c.right, c.atrium, c.right_atrium])
    ground -= 0.16 * np.clip(beyond - 14, 0, 40)
    behind = np.minimum(c.atrium, c.right_atrium)
    ground += 8 * np.exp(-np.clip(behind, 0, None) / 9) * _smooth((depth - 105) / 30)
    canvas.echo[:] = ground


def _arcs(
    canvas: Canvas, rng: np.random.Generator, depth: FloatArray, angle: FloatArray, width: float
) -> Raster:
    """Noise stretched across the beam."""
    column = ((angle - angle.min()) / 0.22 + 2).astype(np.float32)
    row = ((depth - depth.min()) / width + 2).astype(np.float32)
    noise = rng.standard_normal((int(row.max()) + 4, int(column.max()) + 4)).astype(np.float32)
    grain = cv2.remap(noise, column, row, cv2.INTER_CUBIC)
    return grain / max(float(grain.std()), 1e-6)


def _facing(body: HeartShape, canvas: Canvas, gap: FloatArray) -> FloatArray:
    """1 where a wall lies across the beam, 0 where it runs along it."""
    dz, dx = np.gradient(cv2.GaussianBlur(gap, (0, 0), 3.0))
    x, z = canvas.points[..., 0], canvas.points[..., 1] + body.probe.radius
    lengths = (x * x + z * z) * (dx * dx + dz * dz)
    return np.square(dx * x + dz * z) / np.maximum(lengths, 1e-12)


def _smooth(t: FloatArray) -> FloatArray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _walls(body: HeartShape, canvas: Canvas, c: _Chambers, rng: np.random.Generator) -> None:
    """Myocardium, the thin walls, fat in the grooves, and the pericardium about them."""
    p, f = body.parameters, body.frame
    share = c.s / f.length
    side = _smooth(0.5 + c.u / 24)
    thick = (p.septum + (p.wall - p.septum) * side) * (1 - 0.3 * _smooth((0.3 - share) / 0.35))
    thick += 0.4 * canvas.grain(rng, 14, 14, 0.0)
    above = within(c.s - f.length - 0.5, 3.0)
    outer = np.where(c.s < f.length + 2, c.ventricle - thick, 99.0)
    shell = np.minimum.reduce(
        [outer, c.right - _RIGHT_WALL, c.atrium - _ATRIAL_WALL, c.right_atrium - _ATRIAL_WALL]
    )
    # Close the grooves between the chambers, where fat lies.
    shell = cv2.GaussianBlur(shell, (0, 0), 4.0)
    canvas.lay(within(shell, 1.2), -6 + 3 * canvas.grain(rng, 6, 3, 0.1))
    facing = _facing(body, canvas, shell)
    far = 0.35 + 0.65 * _smooth((c.s - 0.25 * f.length) / 30)
    line = band(shell - 0.8, 1.8, 1.0) * far
    patchy = 3.5 * canvas.grain(rng, 14, 5, 1.3)
    canvas.lay(0.85 * line, (2 + 11 * facing + patchy).astype(np.float32))
    # Fibres: brightest where they lie across the beam.
    across = _facing(body, canvas, c.ventricle)
    tilt = float(np.arctan2(f.along[1], f.along[0]))
    fibres = -2.5 + 7.5 * across + 1.8 * canvas.grain(rng, 9, 2.2, tilt)
    fibres += 1.6 * canvas.grain(rng, 14, 14, 0)
    canvas.lay(above * within(c.ventricle - thick, 1.2), fibres.astype(np.float32))
    canvas.lay(0.9 * within(c.right - _RIGHT_WALL, 1.2) * (outer > 0) * above,
               (-5 + 7 * _facing(body, canvas, c.right)).astype(np.float32))  # fmt: skip
    for gap in (c.atrium, c.right_atrium):
        # Thin, and where it runs along the beam it drops out.
        bright = -11 + 15 * _facing(body, canvas, gap) + 3.5 * canvas.grain(rng, 11, 11, 0.0)
        cover = band(gap - _ATRIAL_WALL / 2, _ATRIAL_WALL, 1.0) * (c.s > f.length - p.offset)
        canvas.lay(0.85 * cover, bright.astype(np.float32))
    # The endocardium and the septum's right side: thin lines.
    for gap in (c.ventricle, c.right):
        canvas.add(above * band(gap - 0.4, 0.9, 0.8), 2 + 4 * _facing(body, canvas, gap))


def _blood(canvas: Canvas, c: _Chambers, rng: np.random.Generator) -> None:
    rough = 0.5 * canvas.grain(rng, 3.5, 3.5, 0.0)
    trabecular = 0.9 * canvas.grain(rng, 4, 4, 0.0)
    left = np.minimum(c.ventricle, c.atrium) + rough
    right = np.minimum(c.right + trabecular * (c.s < 0.9 * c.s.max()), c.right_atrium + rough)
    for gap in (left, right):
        canvas.lay(within(gap, 1.2), BLOOD, 0.8 * SOFT)


def _inside(body: HeartShape, canvas: Canvas, c: _Chambers, rng: np.random.Generator) -> None:
    """Papillary muscle at the lateral wall, moderator band in the right ventricle."""
    f = body.frame
    at = rng.uniform(0.42, 0.5)
    root = float(body.half_width(at))
    muscle = curve(
        [f.place(at * f.length - 6, root + 1), f.place(at * f.length + 3, root - 3),
         f.place((at + 0.16) * f.length, root - 5)], 6,
    )  # fmt: skip
    cover = within(_stroke(canvas, muscle) - rng.uniform(1.8, 3.0), 1.5) * rng.uniform(0.3, 0.9)
    canvas.lay(cover, -6 + 1.5 * canvas.grain(rng, 4, 2, 1.4))
    at = rng.uniform(0.36, 0.44)
    outside = -float(body.half_width(at)) - body.parameters.septum
    cord = f.place(np.array([at, at - 0.03]) * f.length,
                   np.array([outside, outside - 0.6 * body.parameters.right]))  # fmt: skip
    canvas.lay(0.7 * within(_stroke(canvas, cord) - 1.5, 1.2), -4.0)


def _leaflets(body: HeartShape, canvas: Canvas, rng: np.random.Generator) -> None:
    """Mitral and tricuspid leaflets, ajar; the annulus that they hang from is bright."""
    p, f = body.parameters, body.frame
    middle = p.coaptation * f.half
    crux = -(f.half + 0.75 * p.septum)
    level = f.length - p.offset
    bases = (
        (f.length, -f.half, middle - 4.5),
        (f.length, f.half, middle + 4.5),
        (level, crux, body.tricuspid + 5),
        (level - 3, crux - p.right, body.tricuspid - 5),
    )
    for base, hinge, tip in bases:
        line = curve(
            [f.place(base, hinge), f.place(base - 4.5, 0.55 * hinge + 0.45 * tip),
             f.place(base - 13.5, tip)], 7,
        )  # fmt: skip
        gap = _stroke(canvas, line)
        canvas.lay(0.9 * within(gap - 0.6, 0.9), 3 + 3 * canvas.grain(rng, 6, 4, 0.2))
        knot = np.hypot(*np.moveaxis(canvas.points - f.place(base, 1.04 * hinge), -1, 0))
        canvas.lay(0.7 * within(knot - 2.2, 2.0), 7.0)


def _window(
    body: HeartShape, canvas: Canvas, rng: np.random.Generator, depth: FloatArray, angle: FloatArray
) -> None:
    """What lies before the heart: chest wall, clutter, and the ribs' and the lung's shadows."""
    p = body.parameters
    apex = p.apex[1]
    arcs = _arcs(canvas, rng, depth, angle, 0.9)
    wall = within(depth - 0.42 * apex, 3.0)
    canvas.lay(0.9 * wall, 3 + 4 * arcs)
    canvas.lay(within(depth - 2.0, 1.0), 10.0)
    haze = p.clutter - 0.33 * np.maximum(depth - 0.5 * apex, 0) + 3 * arcs
    haze += 1.5 * canvas.grain(rng, 20, 20, 0)
    canvas.echo[:] = 10 * np.log10(10 ** (canvas.echo / 10) + 10 ** (haze / 10))
    # Shadows start in the chest wall and go all the way down.
    start = within(np.abs(depth - 7) - 3, 1.0)  # 6 mm thick
    half = body.probe.half_angle
    for sign, loss in zip((-1, 1), p.window, strict=True):
        edge = half * rng.uniform(0.55, 0.85)
        shade = _smooth((sign * angle - edge) / (0.35 * half))
        canvas.loss += (start * shade * loss / 6).astype(np.float32)
    for _ in range(int(rng.integers(1, 4))):
        at, width = rng.uniform(-0.8, 0.8) * half, rng.uniform(0.04, 0.1)
        shade = np.exp(-0.5 * ((angle - at) / width) ** 2)
        canvas.loss += (start * shade * rng.uniform(2, 6) / 6).astype(np.float32)

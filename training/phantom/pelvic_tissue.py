"""What a pelvic floor is made of: layer over layer on a canvas."""

from __future__ import annotations

from typing import Any

import numpy as np

from .paint import Canvas, Grid, band, curve, within

_FLUID = -45.0  # echogenicity of urine: what is seen there is noise and the beam's flanks
_BONE_LOSS = 6.0  # dB per mm there and back: a haze is left behind its edges
_HAZE = 31.0  # dB: reverberation under the bladder's near wall, above urine


def paint(body: Any, grid: Grid) -> Canvas:
    """The tissue of a `Pelvic` at rest."""
    p = body.parameters
    canvas = Canvas(grid, np.random.default_rng([p.seed, 1]))
    x, z = canvas.points[..., 0], canvas.points[..., 1]
    face = np.hypot(x, z + p.probe.radius) - p.probe.radius  # depth under the skin

    # The ground: connective tissue and fat, brighter to the right, in strands round the canal.
    canvas.echo += -5 + 4 * canvas.grain(16, 9, 0.5) + 2.5 * canvas.grain(5, 3, 0.7)
    strands = canvas.grain(14, 1.6, np.radians(canvas.rng.uniform(28, 48)))
    canvas.add(np.clip((x - 14) / 8, 0, 1), 3.0 + 4.0 * np.abs(strands) ** 1.5)
    canvas.add(np.clip((-x - 20) / 8, 0, 1), 2.0 + 2.5 * canvas.grain(9, 2.0, -0.5))
    canvas.add(np.clip((z - 50) / 25, 0, 1), -5 + 4 * canvas.grain(20, 3, 0.05))

    canvas.distort(0.9, np.stack([body.neck, body.edge]))
    _organs(body, canvas)
    _anorectum(body, canvas)
    _urethra(body, canvas)
    _bladder(body, canvas)
    _symphysis(body, canvas)

    # Skin, the fat beneath it, and the probe's cover.
    fat = within(face - p.fat, 2.5)
    canvas.lay(0.75 * fat, 2 + 2.5 * canvas.grain(10, 1.2, 0.0))
    canvas.lay(within(face - 2.2, 1.0), -8.0)
    canvas.lay(band(face - 1.4, 0.7), 7.0)
    canvas.lay(within(face - 0.5, 0.4), 12.0)
    return canvas


def _organs(body: Any, canvas: Canvas) -> None:
    """Vagina: a stripe behind the urethra; cervix: a grey mass behind the bladder; gut: deep, with
    bright air that casts a dirty shadow."""
    p, rng = body.parameters, canvas.rng
    entry = np.array([(p.meatus[0] + p.verge[0]) / 2, 4.0])
    middle = (body.neck + np.array(p.junction)) / 2 + np.array([1.0, 0.0])
    top = middle + np.array([-2.0, 22.0])
    vagina = curve([entry, (entry + middle) / 2 + np.array([1.5, 0]), middle, top])
    gap = canvas.stroke(vagina)
    canvas.lay(0.8 * within(gap - 3.4, 1.5), -7 + 1.5 * canvas.grain(6, 2, 1.4))
    canvas.lay(0.9 * band(gap, 0.8, 0.8), 6.0)
    mass = top + np.array([6.0, 10.0])
    cervix = canvas.ellipse(mass, np.array([13.0, 17.0]), rng.uniform(-0.4, 0.4))
    canvas.lay(0.8 * within(cervix, 3.0), -6 + 2 * canvas.grain(5, 4, 0.3))
    canvas.add(band(cervix, 1.2, 1.2), 5.0)
    for _ in range(rng.integers(1, 4)):
        at = np.array([rng.uniform(-12, 34), rng.uniform(0.78, 0.93) * p.probe.depth])
        air = canvas.ellipse(at, np.array([rng.uniform(4, 9), 1.4]), rng.uniform(-0.4, 0.4))
        canvas.lay(within(air, 1.0), 15 + 3 * canvas.grain(3, 1, 0.0), 1.2)


def _anorectum(body: Any, canvas: Canvas) -> None:
    """Canal: dark sphincter about bright mucosa; behind it the levator plate as a bright sling."""
    p = body.parameters
    verge, junction = np.array(p.verge), np.array(p.junction)
    along = (verge - junction) / np.linalg.norm(verge - junction)
    c, s = np.cos(np.radians(p.anorectal)), np.sin(np.radians(p.anorectal))
    away = np.array([along[0] * c - along[1] * s, along[0] * s + along[1] * c])
    bend = (verge + junction) / 2 + np.array([-1.5, 0])
    rectum = curve([verge, bend, junction, junction + 14 * away, junction + 30 * away])
    gap = canvas.stroke(rectum)
    canvas.lay(0.85 * within(gap - 6.5, 1.5), 3 + 2 * canvas.grain(5, 1.5, 1.2))
    canvas.lay(0.9 * band(gap - 3.6, 2.2, 1.0), -13.0)
    canvas.lay(0.8 * within(gap - 1.6, 1.0), 3 + 3 * canvas.grain(3, 1, 1.2))
    # The levator: from behind the junction towards the coccyx, a ribbon of bright fibres.
    start = body.levator_rest
    toward = np.array([np.cos(np.radians(canvas.rng.uniform(18, 34))), 0.42])
    plate = curve([start - np.array([3.0, 7.0]), start, start + 16 * toward, start + 34 * toward])
    sheet = canvas.stroke(plate)
    canvas.lay(0.9 * within(sheet - 3.6, 1.4), 8 + 4 * canvas.grain(12, 1.3, 0.45))
    canvas.add(band(sheet - 5.2, 1.2, 1.0), -8.0)


def _urethra(body: Any, canvas: Canvas) -> None:
    """A dark core in a grey sheath, from the neck to the meatus."""
    p = body.parameters
    meatus = np.array(p.meatus)
    bend = (body.neck + meatus) / 2 + np.array([1.2, 0.0])
    line = curve([body.neck, bend, meatus])
    gap = canvas.stroke(line)
    half = p.urethra / 2
    canvas.lay(0.85 * within(gap - half, 1.6), -3 + 2 * canvas.grain(7, 1.5, 1.5))
    canvas.lay(0.9 * within(gap - 0.52 * half, 1.6), -14 + 2 * canvas.grain(6, 1.5, 1.5))
    canvas.add(band(gap - half, 1.0, 1.0), 5.0)
    canvas.lay(0.5 * band(gap, 0.5, 0.6), -4.0)


def _bladder(body: Any, canvas: Canvas) -> None:
    """Urine in a wall; the neck is its lowest point, drawn out to a funnel."""
    p = body.parameters
    tilt = np.radians(p.bladder_angle)
    axis = np.array([np.sin(tilt), np.cos(tilt)])
    half = np.array(p.bladder) / 2
    centre = body.neck + axis * half[0]
    u = (canvas.points - centre) @ np.stack([axis, np.array([axis[1], -axis[0]])], axis=1)
    # A drop: narrower towards the neck, and the less even the farther from it.
    along = u[..., 0] / half[0]
    across = u[..., 1] / (half[1] * (1 + 0.28 * along))
    turn, uneven = np.arctan2(across, -along), np.clip((1 + along) / 2, 0, 1)
    for n in (2, 3, 4):
        amount, phase = canvas.rng.uniform(0, 0.2 / n), canvas.rng.uniform(0, 2 * np.pi)
        across = across * (1 + uneven * amount * np.cos(n * turn + phase))
    gap = (np.hypot(along, across) - 1) * float(half.mean())
    wall = band(gap - p.wall / 2, p.wall, 0.8)
    canvas.lay(0.9 * wall, -1 + 2 * canvas.grain(6, 2, 0.0))
    canvas.add(band(gap - 0.3, 0.8, 0.6), 6.0)
    haze = np.exp(-np.maximum(u[..., 0] + half[0], 0) / 14).astype(np.float32)
    canvas.lay(within(gap, 0.5), _FLUID + _HAZE * haze, 0.02)


def _symphysis(body: Any, canvas: Canvas) -> None:
    """Cartilage in a bright capsule; bone behind, in whose shadow nothing is seen."""
    centre, axes, angle = body.bone
    gap = canvas.ellipse(*body.bone)
    canvas.lay(within(gap - 1.0, 1.2), -7 + 2.5 * canvas.grain(8, 2.5, angle), 0.5)
    canvas.add(within(canvas.ellipse(centre, axes * 0.55, angle), 3.0), 6.0)
    canvas.lay(band(gap - 0.6, 1.4, 0.9), 8 + 2 * canvas.grain(6, 1.5, angle))
    # The pubic bone under it: the deep half of the oval and what lies beyond.
    turned = np.array([-np.sin(angle), np.cos(angle)])
    depth = (canvas.points - centre) @ turned - 0.35 * axes[1]
    behind = within(gap + 1.2, 1.0) * within(-depth, 2.0)
    canvas.lay(behind, -10.0, _BONE_LOSS)

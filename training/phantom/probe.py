"""What all subjects share: ranges of parameters, the probe, the display; and where range, angle,
millimetres and pixels meet.

Convention: millimetres (x right, z away from the probe), origin at the middle of the probe's face;
pixels (column, row), 0 = centre of the first pixel; a curved array's lines fan out from the centre
of its face, at z = -radius.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Raster = NDArray[np.float32]
"""(rows, columns), of echogenicity, attenuation or an envelope."""

SIZE = 256
"""Side of a phantom's picture, in pixels."""


class Range(NamedTuple):
    """In ``Annotated[float, Range(10, 300)]``: every number of the field is from low to high."""

    low: float
    high: float


_PLACE = object()
Point = Annotated[tuple[float, float], _PLACE]
"""x and z in mm, from the middle of the probe's face; it must lie before the probe."""
Seed = Annotated[int, Range(0, 2**32 - 1)]


@dataclass(frozen=True)
class Probe:
    """A curved array, or a phased one (a small radius), and how its sector lies in the picture."""

    frequency: Annotated[float, Range(0.5, 40)]  # MHz
    radius: Annotated[float, Range(1, 200)]  # of the face's curvature, mm
    angle: Annotated[float, Range(10, 170)]  # of the whole sector, degrees
    depth: Annotated[float, Range(10, 300)]  # of the sector along a line, mm
    zoom: Annotated[float, Range(0, 1)]  # 0 shows the whole sector, 1 fills the picture's height
    focus: Annotated[float, Range(1, 500)]  # depth of the narrowest beam, mm
    axial: Annotated[float, Range(0.1, 5)]  # full width at half maximum of the pulse, mm
    lateral: Annotated[float, Range(0.2, 10)]  # the same of the beam at its focus, mm

    @property
    def half_angle(self) -> float:
        """Half of the sector, radians."""
        return float(np.radians(self.angle / 2))

    @property
    def top(self) -> float:
        """z of the sector's highest point (the ends of the face), mm; not above 0."""
        return -self.radius * (1 - float(np.cos(self.half_angle)))

    @property
    def width(self) -> float:
        """The sector's width, mm."""
        return 2 * (self.radius + self.depth) * float(np.sin(self.half_angle))

    @property
    def mm_per_pixel(self) -> float:
        sides = self.width, self.depth - self.top
        return (max(sides) + self.zoom * (min(sides) - max(sides))) * 1.02 / SIZE

    @property
    def wavelength(self) -> float:
        """In soft tissue, where sound travels 1.54 mm per microsecond; mm."""
        return 1.54 / self.frequency

    @property
    def corner(self) -> FloatArray:
        """The centre of the first pixel, mm (2,)."""
        middle = np.array([0.0, (self.top + self.depth) / 2])
        return middle - self.mm_per_pixel * (SIZE - 1) / 2

    def to_mm(self, pixels: FloatArray) -> FloatArray:
        """Pixels (..., 2) -> mm."""
        return self.corner + self.mm_per_pixel * np.asarray(pixels, np.float64)

    def to_pixels(self, mm: FloatArray) -> FloatArray:
        """mm (..., 2) -> pixels."""
        return (np.asarray(mm, np.float64) - self.corner) / self.mm_per_pixel

    def to_polar(self, mm: FloatArray) -> tuple[FloatArray, FloatArray]:
        """mm (..., 2) -> depth along the line (mm) and angle from the middle line (radians)."""
        x, z = mm[..., 0], mm[..., 1] + self.radius
        return np.hypot(x, z) - self.radius, np.arctan2(x, z)

    def from_polar(self, depth: FloatArray, angle: FloatArray) -> FloatArray:
        """Depth (mm) and angle (radians) -> mm (..., 2)."""
        length = depth + self.radius
        return np.stack([length * np.sin(angle), length * np.cos(angle) - self.radius], axis=-1)

    def inside(self, mm: FloatArray, margin: float = 0.0) -> NDArray[np.bool_]:
        """Which points (..., 2) lie in the sector, at least ``margin`` mm from its border."""
        depth, angle = self.to_polar(mm)
        side = (self.half_angle - np.abs(angle)) * (depth + self.radius)
        return (depth >= margin) & (depth <= self.depth - margin) & (side >= margin)

    def beam_width(self, depth: FloatArray) -> FloatArray:
        """FWHM of the beam at a depth (mm): a Gaussian beam whose Rayleigh range is 30 times its
        waist."""
        return self.lateral * np.sqrt(1 + ((depth - self.focus) / (30 * self.lateral)) ** 2)

    def sector(self) -> NDArray[np.bool_]:
        """The pixels (SIZE, SIZE) that show tissue."""
        return self.inside(self.to_mm(pixel_grid()))


@dataclass(frozen=True)
class Display:
    """The scanner's settings. Levels are relative to unshadowed tissue of 0 dB."""

    dynamic_range: Annotated[float, Range(10, 150)]  # of the log compression, dB
    white: Annotated[float, Range(-60, 100)]  # level that is shown as white, dB
    gamma: Annotated[float, Range(0.1, 10)]  # of the grey curve; above 1 darkens the greys
    noise: Annotated[float, Range(0, 200)]  # of the receiver, dB below tissue at the face
    gain: Annotated[float, Range(-1, 2)]  # with depth, dB per mm
    # Weights of this frame, the one before and the one before that; they sum to 1.
    persistence: Annotated[tuple[float, float, float], Range(0, 1)]
    frame_rate: Annotated[float, Range(1, 1000)]  # frames per second


PERSISTENCE = (0.7, 0.3, 0.0), (0.6, 0.3, 0.1), (0.5, 0.3, 0.2)
"""Of usual scanners."""


def evenly(rng: np.random.Generator, low: float, high: float) -> float:
    """A random number between two others, to three decimals."""
    return round(float(rng.uniform(low, high)), 3)


def pixel_grid() -> FloatArray:
    """Pixel coordinates (SIZE, SIZE, 2) of the picture."""
    line = np.arange(SIZE, dtype=np.float64)
    return np.stack(np.meshgrid(line, line), axis=-1)


def out_of_range(part: Any, probe: Probe | None = None, above: str = "") -> str | None:
    """What is wrong with the first value of a subject's parameters, dataclasses in them included,
    that its annotation forbids; None if all are allowed."""
    probe = probe or part.probe
    hints = get_type_hints(type(part), include_extras=True)
    for field in fields(part):
        value, name = getattr(part, field.name), above + field.name
        if is_dataclass(value):
            if found := out_of_range(value, probe, f"{name}."):
                return found
            continue
        (rule,) = getattr(hints[field.name], "__metadata__", (None,))
        if rule is None:
            continue
        if rule is not _PLACE:
            for number in value if isinstance(value, tuple) else (value,):
                if not rule.low <= number <= rule.high:
                    shown = f"{number:g}" if isinstance(number, float) else str(number)[:40]
                    return f"{name} is {shown}: it must be from {rule.low:g} to {rule.high:.10g}"
        elif not 0 < value[1] < probe.depth:
            return f"{name} is at depth {value[1]:g} mm: it must be above 0 and below probe.depth"
        elif abs(value[0]) > probe.width:
            return f"{name} is {value[0]:g} mm beside the middle: far outside of the sector"
    if isinstance(part, Display) and abs(sum(part.persistence) - 1) > 1e-6:
        return f"{above}persistence sums to {sum(part.persistence):g}: it must sum to 1"
    return None

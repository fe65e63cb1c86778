"""A pelvic floor at rest: its measures and where its parts lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from .body import Body
from .display import Display
from .probe import Probe
from .ranges import Point, Range, Seed

# Ranges are wider than the population, so that rare cases can be made.


@dataclass(frozen=True)
class Valsalva:
    """How the manoeuvre goes. Times are shares of the clip."""

    start: Annotated[float, Range(0, 1)]
    peak: Annotated[float, Range(0, 1)]
    release: Annotated[float, Range(0, 2)]
    left: Annotated[float, Range(0, 1)]  # share of the descent that is left at the end
    descent: Annotated[float, Range(-30, 60)]  # of the bladder neck towards the probe, mm
    opening: Annotated[float, Range(-90, 90)]  # degrees the neck swings about the symphysis
    rotation: Annotated[float, Range(-120, 120)]  # of the urethra, degrees
    levator: Annotated[float, Range(-30, 40)]  # descent of the levator plate, mm
    breath: Annotated[float, Range(0, 15)]  # amplitude, mm
    breaths: Annotated[float, Range(0, 20)]  # in the whole clip
    sway: Annotated[float, Range(0, 15)]  # of the probe, mm about rest
    tilt: Annotated[float, Range(0, 20)]  # of the probe, degrees about rest
    out_of_plane: Annotated[float, Range(-20, 20)]  # slip of the image plane at the peak, mm
    seed: Seed  # of the sway


@dataclass(frozen=True)
class PelvicParameters:
    """One subject. Lengths in mm, angles in degrees."""

    probe: Probe
    display: Display
    edge: Point  # lower edge of the symphysis, the keypoint `symphysis`
    symphysis: Annotated[tuple[float, float], Range(3, 80)]  # length, thickness
    symphysis_angle: Annotated[float, Range(-180, 180)]  # of its axis above the horizontal
    neck: Point  # bladder neck at rest, the other keypoint
    bladder: Annotated[tuple[float, float], Range(3, 100)]  # length, width
    bladder_angle: Annotated[float, Range(-180, 180)]  # of its axis from the vertical
    wall: Annotated[float, Range(0.5, 20)]  # of the bladder
    urethra: Annotated[float, Range(1, 40)]  # width
    meatus: Point  # the urethra's end near the face
    junction: Point  # anorectal junction
    verge: Point  # the anal canal's end near the face
    anorectal: Annotated[float, Range(30, 180)]  # angle between canal and rectum
    hiatus: Annotated[float, Range(5, 150)]  # symphysis to levator; on record only (see junction)
    fat: Annotated[float, Range(0, 40)]  # thickness of the layer under the skin
    manoeuvre: Valsalva
    seed: Seed  # of tissue grain


class PelvicShape(Body):
    """A subject's pelvic floor, as its tissue is painted."""

    def __init__(self, parameters: PelvicParameters) -> None:
        p = parameters
        super().__init__(p, np.array([p.neck, p.edge]))
        self.neck, self.edge = self.rest
        axis = np.radians(p.symphysis_angle)
        self.bone_axes = np.array(p.symphysis) / 2
        # The axis runs up and to the left; the edge is the ellipse's lower right end.
        self.bone_angle = float(axis)
        self.bone = self.edge - self.bone_axes[0] * np.array([np.cos(axis), np.sin(axis)])
        self.levator_rest = np.array(p.junction) + np.array([7.0, 3.0])
        self.deep = np.array([self.neck[0] + 10, 0.95 * p.probe.depth])

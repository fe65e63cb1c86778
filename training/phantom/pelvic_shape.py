"""A pelvic floor at rest: its measures and where its parts lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .display import Display
from .probe import SIZE, Probe


@dataclass(frozen=True)
class Valsalva:
    """How the manoeuvre goes.

    Attributes:
        start, peak, release: when it begins, is at its greatest and ends, shares of the clip.
        left: share of the descent that is left at the end.
        descent: of the bladder neck towards the probe, mm.
        opening: angle by which the neck swings about the symphysis while it descends, degrees.
        rotation: of the urethra, degrees.
        levator: descent of the levator plate, mm.
        breath: amplitude, mm; breaths: in the whole clip.
        sway: of the probe, mm; tilt: degrees; both reach so far about rest.
        out_of_plane: slip of the image plane at the peak, mm.
        seed: of the sway's course.
    """

    start: float
    peak: float
    release: float
    left: float
    descent: float
    opening: float
    rotation: float
    levator: float
    breath: float
    breaths: float
    sway: float
    tilt: float
    out_of_plane: float
    seed: int


@dataclass(frozen=True)
class PelvicParameters:
    """One subject. Lengths in mm, angles in degrees, points (x, z) from the middle of the face.

    Attributes:
        edge: the symphysis' lower edge, the keypoint `symphysis`.
        symphysis: its length and thickness; symphysis_angle: of its axis above the horizontal.
        neck: the bladder neck at rest, the other keypoint.
        bladder: length and width of the bladder; bladder_angle: of its axis from the vertical.
        wall: of the bladder.
        urethra: its width; meatus: where it ends near the face.
        junction: the anorectal junction; verge: the anal canal's end near the face.
        anorectal: angle between canal and rectum.
        hiatus: from the symphysis' edge to the levator; on record only (see junction).
        fat: thickness of the layer under the skin.
        seed: of tissue grain and scatterers.
    """

    probe: Probe
    display: Display
    edge: tuple[float, float]
    symphysis: tuple[float, float]
    symphysis_angle: float
    neck: tuple[float, float]
    bladder: tuple[float, float]
    bladder_angle: float
    wall: float
    urethra: float
    meatus: tuple[float, float]
    junction: tuple[float, float]
    verge: tuple[float, float]
    anorectal: float
    hiatus: float
    fat: float
    manoeuvre: Valsalva
    seed: int


class PelvicShape:
    """A subject's pelvic floor, as its tissue is painted."""

    def __init__(self, parameters: PelvicParameters) -> None:
        p = self.parameters = parameters
        self.probe, self.display = p.probe, p.display
        self.edge, self.neck = np.array(p.edge), np.array(p.neck)
        axis = np.radians(p.symphysis_angle)
        self.bone_axes = np.array(p.symphysis) / 2
        # The axis runs up and to the left; the edge is the ellipse's lower right end.
        self.bone_angle = float(axis)
        self.bone = self.edge - self.bone_axes[0] * np.array([np.cos(axis), np.sin(axis)])
        self.levator_rest = np.array(p.junction) + np.array([7.0, 3.0])
        self.deep = np.array([self.neck[0] + 10, 0.95 * p.probe.depth])
        self.mm_per_point = SIZE / 2 * p.probe.mm_per_pixel

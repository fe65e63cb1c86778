"""A tiny bundle of real ONNX stages whose control is a grid of displacements, with landmarks.

Around the reference's bright blob, read where the alignment says, the source moves as the driving
blob has moved; far from it nothing moves. Landmarks are `left` and `right` of the centre of
brightness, found where a picture has anything bright, and `never`, which is never there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from toy_bundle import CENTRE, RESIZE, SCALE, blob, write_toy

from sonomime.runtime.bundle import manifest as contract
from sonomime.runtime.session import Session, own_places

CELLS = 8
ASIDE = 0.2
REACH = 0.5  # of the motion around the blob, in points
NAMES = ("left", "right", "never")

LANDMARKS = f"""{CENTRE}
there = Add(CENTRE, aside)
rows = Reshape(levels, all)
bright = ReduceMax(rows, axis_2)
share = Div(bright, light)
sure = Clip(share, zero, unit)
each = Mul(sure, sureness)
landmarks = Concat <axis=2> (there, each)
"""
DISPLACE = """
centre = Reshape(reference_centre, point)
away = Sub(alignment, centre)
square = Mul(away, away)
squares = ReduceSum(square, axis_3)
far = Div(squares, reach)
near = Exp(far)
moved = Sub(reference_centre, driving_centre)
back = Reshape(moved, point)
local = Mul(near, back)
displacement = Mul(local, scale)
next_state = Add(state, unit)
"""
CONFIDENCE = "confidence = Transpose <perm=[0, 3, 1, 2]> (near)"
DISPLACED = f"""
planes = Transpose <perm=[0, 3, 1, 2]> (displacement)
wide = {RESIZE} (planes, , , planar)
moves = Transpose <perm=[0, 2, 3, 1]> (wide)
where = Add(moves, square)
warped = GridSample <mode="linear", padding_mode="zeros"> (source_feature, where)
whole = Round(warped)
clipped = Clip(whole, zero, white)
frame = Cast <to=2> (clipped)
"""


def make_displacement_toy(
    folder: Path, size: int = 64, channels: int = 1, landmarks: Sequence[str] = NAMES,
    sure: bool = False,
) -> Path:  # fmt: skip
    """Write the toy of displacements into `folder`, which is made; `landmarks`: NAMES or none;
    `sure`: it says how sure its displacements are, more so near the reference's blob."""
    finder = {("landmarks", "landmarks"): LANDMARKS.replace("IMAGE", "landmark_image")}
    observe = CENTRE.replace("IMAGE", "driving_frame").replace("CENTRE", "driving_centre")
    return write_toy(
        folder, size, channels,
        {
            **(finder if landmarks else {}),
            ("source", "source"): "source_feature = Cast <to=1> (source_image)",
            ("observe", "observe"): observe,
            ("transfer", "frame"): DISPLACE + CONFIDENCE * sure,
            ("generator", "frame"): DISPLACED,
        },
        {
            "landmarks": (1, len(NAMES), 3), "confidence": (1, 1, CELLS, CELLS),
            **dict.fromkeys(("driving_centre", "reference_centre"), (1, 2)),
            **dict.fromkeys(("displacement", "alignment"), (1, CELLS, CELLS, 2)),
            **dict.fromkeys(("state", "next_state"), (1,)),
        },
        {
            "aside": [[[-ASIDE, 0], [ASIDE, 0], [0, 0]]], "sureness": [[[1.0], [0.9], [0.0]]],
            "all": [1, 1, -1], "light": 200.0, "reach": -(REACH**2), "row": [1, -1],
            "square": own_places(size, size),
        },
        control=contract.DisplacementControl(CELLS, CELLS, landmarks=tuple(landmarks)),
        controls=(SCALE,),
    )  # fmt: skip


def planes(x: float, y: float) -> Any:
    return blob(64, x, y)[None, None]


def scene(session: Session) -> list[Any]:
    """Frames, with landmarks looked for and the alignment changed in between."""
    made: list[Any] = [session.find_landmarks(planes(0.3, 0))]
    session.set_source(planes(0.3, 0))
    session.set_reference(planes(-0.3, 0))
    aside = np.full((1, CELLS, CELLS, 2), 0.1, np.float32)
    made.append(session.replay({"displacement": aside}).copy())
    for i in range(5):
        made.append(session.animate(planes(-0.3 + 0.1 * i, 0.1)).copy())
        made.append(session.find_landmarks(planes(0.1 * i, 0.2)))
        shift = np.array([-0.1 * i, 0], np.float32)
        session.align(own_places(CELLS, CELLS) + shift)
        made.append(session.match(planes(0.1, 0.1)))
        session.animate(planes(0.1, 0.1))
        made.append(session.read("displacement"))
    return [*made, session.read("state"), session.read("alignment")]

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
from onnx import TensorProto
from toy_bundle import Graph, Plan, blob, write_toy

from sonomime.runtime.bundle import manifest as contract
from sonomime.runtime.session import Session, own_places

CELLS = 8
ASIDE = 0.2
REACH = 0.5  # of the motion around the blob, in points
NAMES = ("left", "right", "never")
CONTROLS = (contract.ControlInput("scale", 1.0, (0.0, 10.0), "", "factor of the motion"),)


def _centre(g: Graph, image: str, size: int, out: str = "") -> str:
    """The centre of brightness, (1, 2); 0 for a black picture."""
    grey = g("ReduceMean", g("Cast", image, to=1), g.constant([1], np.int64), keepdims=0)
    flat = g("Reshape", grey, g.constant([1, size * size], np.int64))
    total = g("Add", g("ReduceSum", flat, g.constant([1], np.int64)), g.constant(1e-6))
    return g(
        "Div", g("MatMul", flat, g.constant(own_places(size, size).reshape(-1, 2))), total, out=out
    )


def _landmarks(g: Graph, size: int) -> None:
    centre = g("Reshape", _centre(g, "landmark_image", size), g.constant([1, 1, 2], np.int64))
    aside = np.array([[-ASIDE, 0], [ASIDE, 0], [0, 0]])[None]
    places = g("Add", centre, g.constant(aside))
    levels = g("Reshape", g("Cast", "landmark_image", to=1), g.constant([1, 1, -1], np.int64))
    bright = g("ReduceMax", levels, g.constant([2], np.int64), keepdims=1)
    there = g("Clip", g("Div", bright, g.constant(200.0)), g.constant(0.0), g.constant(1.0))
    sure = g("Mul", there, g.constant(np.array([[[1.0], [0.9], [0.0]]])))
    g("Concat", places, sure, axis=2, out="landmarks")


def _transfer(g: Graph, sure: bool) -> None:
    shape = g.constant([1, 1, 1, 2], np.int64)
    away = g("Sub", "alignment", g("Reshape", "reference_centre", shape))
    squares = g("ReduceSum", g("Mul", away, away), g.constant([3], np.int64), keepdims=1)
    near = g("Exp", g("Div", squares, g.constant(-(REACH**2))))
    back = g("Reshape", g("Sub", "reference_centre", "driving_centre"), shape)
    g("Mul", g("Mul", near, back), "scale", out="displacement")
    g("Add", "state", g.constant(1.0), out="next_state")
    if sure:
        g("Transpose", near, perm=[0, 3, 1, 2], out="confidence")


def _generator(g: Graph, size: int) -> None:
    planes = g("Transpose", "displacement", perm=[0, 3, 1, 2])
    sizes = g.constant([1, 2, size, size], np.int64)
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    wide = g("Transpose", g("Resize", planes, "", "", sizes, **linear), perm=[0, 2, 3, 1])
    grid = g("Add", wide, g.constant(own_places(size, size)))
    warped = g("GridSample", "source_feature", grid, mode="linear", padding_mode="zeros")
    clipped = g("Clip", g("Round", warped), g.constant(0.0), g.constant(255.0))
    g("Cast", clipped, to=TensorProto.UINT8, out="frame")


def make_displacement_toy(
    folder: Path, size: int = 64, channels: int = 1, landmarks: Sequence[str] = NAMES,
    sure: bool = False,
) -> Path:  # fmt: skip
    """Write the bundle into `folder`, which is made, and return it; `landmarks`: NAMES or none;
    `sure`: it says how sure its displacements are, more so near the reference's blob."""
    folder.mkdir(parents=True, exist_ok=True)

    def tensor(name: str, *shape: int, dtype: Any = "float32") -> contract.Tensor:
        return contract.Tensor(name, dtype, shape, "a toy's " + name.replace("_", " "))

    def image(name: str) -> contract.Tensor:
        return tensor(name, 1, channels, size, size, dtype="uint8")

    finder, source, observe, transfer, generator = (Graph() for _ in range(5))
    _landmarks(finder, size)
    source("Cast", "source_image", to=1, out="source_feature")
    _centre(observe, "driving_frame", size, out="driving_centre")
    _transfer(transfer, sure)
    _generator(generator, size)
    feature = tensor("source_feature", 1, channels, size, size)
    seen, kept = tensor("driving_centre", 1, 2), tensor("reference_centre", 1, 2)
    grid = (1, CELLS, CELLS, 2)
    move = tensor("displacement", *grid)
    confidence = [tensor("confidence", 1, 1, CELLS, CELLS)] if sure else []
    plans: list[Plan] = [
        ("landmarks", "landmarks", finder, [image("landmark_image")],
         [tensor("landmarks", 1, len(NAMES), 3)]),
        ("source", "source", source, [image("source_image")], [feature]),
        ("observe", "observe", observe, [image("driving_frame")], [seen]),
        ("transfer", "frame", transfer,
         [kept, seen, tensor("alignment", *grid), tensor("scale", 1), tensor("state", 1)],
         [move, tensor("next_state", 1), *confidence]),
        ("generator", "frame", generator, [feature, move], [image("frame")]),
    ]  # fmt: skip
    return write_toy(
        folder, plans[0 if landmarks else 1 :],
        contract.ImageFormat(size, 1 if channels == 1 else 3),
        control=contract.DisplacementControl(CELLS, CELLS, landmarks=tuple(landmarks)),
        controls=CONTROLS,
        recurrent=(contract.Recurrent("next_state", "state"),),
    )  # fmt: skip


def planes(x: float, y: float) -> Any:
    return blob(64, x, y)[None, None]


def scene(session: Session) -> list[Any]:
    """Frames, with landmarks looked for and the alignment changed in between."""
    made: list[Any] = [session.find_landmarks(planes(0.3, 0))]
    session.set_source(planes(0.3, 0))
    session.set_reference(planes(-0.3, 0))
    for i in range(5):
        made.append(session.animate(planes(-0.3 + 0.1 * i, 0.1)).copy())
        made.append(session.find_landmarks(planes(0.1 * i, 0.2)))
        shift = np.array([-0.1 * i, 0], np.float32)
        session.align(own_places(CELLS, CELLS) + shift)
        made.append(session.match(planes(0.1, 0.1)))
        session.animate(planes(0.1, 0.1))
        made.append(session.read("displacement"))
    return [*made, session.read("state"), session.read("alignment")]

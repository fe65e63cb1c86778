"""A tiny bundle of real ONNX stages, for tests that need no trainer.

The keypoints are the picture's centre of brightness and fixed offsets from it, the motion shifts
the source by the mean move of the keypoints, and the generator samples the source: a bright blob
follows the driving blob. The transfer smooths with one low pass, so its state advances.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from sonomime.runtime.bundle import manifest as contract
from sonomime.runtime.bundle.bundle import write_manifest
from sonomime.runtime.media.frames import png_bytes
from sonomime.runtime.session import own_places
from sonomime.runtime.support.plain_file import sha256_file

MAP, KEYPOINTS = 64, 3

SCALE = contract.ControlInput("scale", 1.0, (0.0, 10.0), "", "factor of the motion")
CONTROLS = (
    contract.ControlInput("relative", 1.0, (0.0, 1.0), "", "1: relative motion, 0: absolute"),
    SCALE,
    contract.ControlInput("min_cutoff", 0.0, (0.0, 1e6), "Hz", "smoothing at rest; 0: none"),
    contract.ControlInput("beta", 0.0, (0.0, 1e6), "Hz s", "less smoothing when fast"),
    contract.ControlInput("dt_seconds", 1 / 30, (0.0, 1e9), "s", "since the last frame"),
)
IMAGES = ("source_image", "driving_frame", "landmark_image", "frame")

# The centre of brightness of an image, (1, 2); 0 for a black one.
CENTRE = """
levels = Cast <to=1> (IMAGE)
grey = ReduceMean <keepdims=0> (levels, axis_1)
flat = Reshape(grey, row)
sum = ReduceSum(flat, axis_1)
total = Add(sum, tiny)
weighed = MatMul(flat, places)
CENTRE = Div(weighed, total)
"""
TRANSFER = """
moved = Sub(driving_kp_value, reference_kp_value)
further = Mul(moved, scale)
shifted = Add(source_kp_value, further)
is_relative = Greater(relative, half)
raw = Where(is_relative, shifted, driving_kp_value)
flat = Reshape(raw, row)
seen, last = Split <axis=1> (state, widths)
cycles = Mul(min_cutoff, dt_seconds)
rate = Mul(cycles, turn)
below = Add(rate, unit)
low_pass = Div(rate, below)
gap = Sub(flat, last)
step = Mul(gap, low_pass)
smoothed = Add(last, step)
nothing = Mul(beta, zero)
off = LessOrEqual(min_cutoff, nothing)
fresh = Less(seen, half)
plain = Or(fresh, off)
result = Where(plain, flat, smoothed)
target_kp_value = Reshape(result, points)
next_state = Concat <axis=1> (yes, result)
"""
MOTION = """
grey = ReduceMean (source_small, axis_1)
move = Sub(source_kp_value, target_kp_value)
all_move = ReduceMean (move, axis_1)
shift = Reshape(all_move, point)
deformation = Add(grid, shift)
zeros = Mul(grey, zero)
occlusion_map = Add(zeros, unit)
"""
LAYERS = "gate = Sub(occlusion_map, zero)\noffset = Sub(occlusion_map, unit)"
RESIZE = 'Resize <mode="linear", coordinate_transformation_mode="half_pixel">'
GENERATOR = f"""
planes = Transpose <perm=[0, 3, 1, 2]> (deformation)
wide = {RESIZE} (planes, , , planar)
shown = {RESIZE} (occlusion_map, , , flat)
where = Transpose <perm=[0, 2, 3, 1]> (wide)
warped = GridSample <mode="linear", padding_mode="zeros"> (source_feature, where)
dimmed = Mul(warped, shown)
bright = Mul(dimmed, white)
whole = Round(bright)
clipped = Clip(whole, zero, white)
frame = Cast <to=2> (clipped)
"""


def blob(
    size: int, x: float, y: float, channels: int = 1, height: int | None = None, width: float = 0.15
) -> NDArray[np.uint8]:
    """A picture (H, W) or (H, W, 3) with one bright blob at (x, y), each in [-1, 1]."""
    there = own_places(height or size, size)[0] - (x, y)
    image = np.rint(255 * np.exp(-np.square(there).sum(-1) / (2 * width**2))).astype(np.uint8)
    return image if channels == 1 else np.stack([image, image // 2, image // 4], -1)


def centre(image: NDArray[np.uint8]) -> Any:
    """Where the brightness of a picture lies, (x, y) in [-1, 1]."""
    grey = image if image.ndim == 2 else image.sum(-1)
    return (grey[..., None] * own_places(*grey.shape)[0]).sum((0, 1)) / grey.sum()


def make_toy_bundle(folder: Path, size: int = 64, channels: int = 1, layers: bool = False) -> Path:
    """Write the toy of keypoints into `folder`, which is made; with neutral layers or none.

    The frame stays what the generator makes, whatever the layers say.
    """
    pool = f"kernel_shape=[{size // MAP}, {size // MAP}], strides=[{size // MAP}, {size // MAP}]"
    source = f"""{_keypoints("source_image", "source_kp_value")}
source_feature = Div(levels, white)
source_small = AveragePool <{pool}> (source_feature)"""
    angles = 2 * np.pi * np.arange(KEYPOINTS) / KEYPOINTS
    return write_toy(
        folder, size, channels,
        {
            ("source", "source"): source,
            ("keypoints", "observe"): _keypoints("driving_frame", "driving_kp_value"),
            ("transfer", "frame"): TRANSFER,
            ("motion", "frame"): MOTION + LAYERS * layers,
            ("generator", "frame"): GENERATOR,
        },
        {
            **{f"{whose}_kp_value": (1, KEYPOINTS, 2)
               for whose in ("source", "driving", "reference", "target")},
            "source_small": (1, channels, MAP, MAP), "deformation": (1, MAP, MAP, 2),
            **dict.fromkeys(("occlusion_map", "gate", "offset"), (1, 1, MAP, MAP)),
            **dict.fromkeys(("state", "next_state"), (1, 1 + 2 * KEYPOINTS)),
        },
        {
            "offsets": 0.1 * np.stack([np.cos(angles), np.sin(angles)], -1)[None],
            "widths": [1, 2 * KEYPOINTS], "row": [1, -1], "points": [1, KEYPOINTS, 2],
            "yes": [[1.0]], "grid": own_places(MAP, MAP), "flat": [1, 1, size, size],
        },
        control=contract.KeypointControl(KEYPOINTS, (contract.SupervisedKeypoint(0, "blob"),)),
        controls=CONTROLS,
        layers=contract.Layers("deformation", "deformation", "gate", "offset", "gate")
        if layers else None,
    )  # fmt: skip


def _keypoints(image: str, name: str) -> str:
    return CENTRE.replace("IMAGE", image) + f"{name} = Add(CENTRE, offsets)"


def write_toy(
    folder: Path, size: int, channels: int, stages: Mapping[tuple[str, Any], str],
    shapes: Mapping[str, tuple[int, ...]], constants: Mapping[str, Any], **chain: Any,
) -> Path:  # fmt: skip
    """Write stages (their nodes, by name and role) and a manifest about them."""
    folder.mkdir(parents=True, exist_ok=True)
    square = (1, channels, size, size)
    all_shapes = {
        **shapes, **dict.fromkeys((*IMAGES, "source_feature"), square),
        **{control.name: (1,) for control in chain["controls"]},
    }  # fmt: skip
    tensors = {
        name: contract.Tensor(
            name, "uint8" if name in IMAGES else "float32", shape, f"toy's {name}"
        )
        for name, shape in all_shapes.items()
    }
    constants = {
        "axis_1": [1], "axis_2": [2], "axis_3": [3], "zero": 0.0, "unit": 1.0, "half": 0.5,
        "white": 255.0, "tiny": 1e-6, "turn": 2 * np.pi, "point": [1, 1, 1, 2],
        "planar": [1, 2, size, size],
        "places": own_places(size, size).reshape(-1, 2), **constants,
    }  # fmt: skip
    files = []
    for (name, role), text in stages.items():
        nodes = [onnx.parser.parse_node(line) for line in text.splitlines() if line]
        made = [output for node in nodes for output in node.output]
        read = dict.fromkeys(
            each for node in nodes for each in node.input if each and each not in made
        )
        inputs, outputs = (
            tuple(tensors[n] for n in names if n in tensors) for names in (read, made)
        )
        graph = helper.make_graph(nodes, name, *map(_infos, (inputs, outputs)))
        for each in [each for each in read if each not in tensors]:
            value = np.asarray(constants[each])  # whole numbers are shapes and axes
            value = value.astype(np.int64 if value.dtype == int else np.float32)
            graph.initializer.append(numpy_helper.from_array(value, each))
        opset = helper.make_opsetid("", 20)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
        onnx.checker.check_model(model)
        file = folder / f"{name}.onnx"
        onnx.save(model, file)
        digest = sha256_file(file)
        files.append(contract.StageFile(name, role, inputs, outputs, file.name, digest))
    # Relative motion moves the source's blob as the driving one has moved.
    golden = {"source": (1, -2), "reference": (-1, 1), "driving": (-3, 2), "output": (-1, -1)}
    digests = {
        name: _write(folder, f"golden_{name}.png", png_bytes(blob(size, x / 10, y / 10, channels)))
        for name, (x, y) in golden.items()
    }
    manifest = contract.Manifest(
        schema_version=contract.SCHEMA_VERSION,
        name="toy",
        preset="toy",
        created_with="test",
        image=contract.ImageFormat(size, 1 if channels == 1 else 3),
        geometry="half_pixel",
        precision="fp32",
        stages=tuple(files),
        tolerances=contract.Tolerances(1e-4, frame_levels=255),
        golden=contract.Golden(**digests, motion="relative"),
        provenance=contract.Provenance("", 0, (contract.DataCredit("none", "CC0"),), "CC0"),
        recurrent=(contract.Recurrent("next_state", "state"),),
        files=(_write(folder, "MODEL_CARD.md", b"# A toy\n"),),
        **chain,
    )
    write_manifest(folder, manifest)
    return folder


def _infos(tensors: Sequence[contract.Tensor]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(t.name, 2 if t.dtype == "uint8" else 1, t.shape)
        for t in tensors
    ]


def _write(folder: Path, file: str, content: bytes) -> contract.FileDigest:
    (folder / file).write_bytes(content)
    return contract.FileDigest(file, hashlib.sha256(content).hexdigest())


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Let `change` alter the manifest's plain data in place, without any check."""
    path = folder / contract.MANIFEST
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def replace_file(folder: Path, file: str, content: bytes) -> None:
    """Put other content under a file's name and its digest into the manifest."""
    digest = _write(folder, file, content)

    def change(data: dict[str, Any]) -> None:
        for entry in (*data["stages"], *data["files"], *data["golden"].values()):
            if isinstance(entry, dict) and entry["file"] == file:
                entry["sha256"] = digest.sha256

    edit_manifest(folder, change)


def copy_bundle(bundle: Path, folder: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(bundle, folder))

"""A tiny bundle of real ONNX stages, for tests that need no trainer.

The keypoints are the picture's centre of brightness and fixed offsets from it, the motion shifts
the source by the mean move of the keypoints, and the generator samples the source: a bright blob
follows the driving blob. The transfer smooths with one low pass, so its state advances.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sonomime.runtime.bundle import manifest as contract
from sonomime.runtime.bundle.bundle import write_manifest
from sonomime.runtime.media.frames import png_bytes
from sonomime.runtime.support.plain_file import sha256_file

MAP = 64

CONTROLS = (
    contract.ControlInput("relative", 1.0, (0.0, 1.0), "", "1: relative motion, 0: absolute"),
    contract.ControlInput("scale", 1.0, (0.0, 10.0), "", "factor of the motion"),
    contract.ControlInput("min_cutoff", 0.0, (0.0, 1e6), "Hz", "smoothing at rest; 0: none"),
    contract.ControlInput("beta", 0.0, (0.0, 1e6), "Hz s", "less smoothing when fast"),
    contract.ControlInput("dt_seconds", 1 / 30, (0.0, 1e9), "s", "since the last frame"),
)
DTYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


class Graph:
    """Collects nodes and constants; every call returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, op: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        name = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def save(
        self, path: Path, inputs: Sequence[contract.Tensor], outputs: Sequence[contract.Tensor]
    ) -> None:
        def infos(tensors: Sequence[contract.Tensor]) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(t.name, DTYPES[t.dtype], t.shape) for t in tensors
            ]

        graph = helper.make_graph(
            self.nodes, path.stem, infos(inputs), infos(outputs), self.constants
        )
        opset = helper.make_opsetid("", 20)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
        onnx.checker.check_model(model)
        onnx.save(model, path)


Plan = tuple[str, Any, Graph, list[contract.Tensor], list[contract.Tensor]]


def blob(
    size: int, x: float, y: float, channels: int = 1, height: int | None = None, width: float = 0.15
) -> NDArray[np.uint8]:
    """A picture (H, W) or (H, W, 3) with one bright blob at (x, y), each in [-1, 1]."""
    height = height or size
    ys = (2 * np.arange(height) + 1) / height - 1
    xs = (2 * np.arange(size) + 1) / size - 1
    grey = np.exp(-((xs[None] - x) ** 2 + (ys[:, None] - y) ** 2) / (2 * width**2))
    image = np.rint(255 * grey).astype(np.uint8)
    return image if channels == 1 else np.stack([image, image // 2, image // 4], -1)


def _detect(g: Graph, image: str, size: int, count: int, prefix: str) -> None:
    """Centre of brightness plus offsets -> (1, K, 2); identity jacobians (1, K, 2, 2)."""
    grey = g("ReduceMean", g("Cast", image, to=1), g.constant([1], np.int64), keepdims=0)
    total = g("Add", g("ReduceSum", grey, g.constant([1, 2], np.int64)), g.constant(1e-6))
    axis = (2 * np.arange(size, dtype=np.float32) + 1) / size - 1
    coordinates = []
    for grid in (axis[None, None, :], axis[None, :, None]):
        weighted = g("ReduceSum", g("Mul", grey, g.constant(grid)), g.constant([1, 2], np.int64))
        coordinates.append(g("Div", weighted, total))
    centre = g("Reshape", g("Concat", *coordinates, axis=2), g.constant([1, 1, 2], np.int64))
    angle = 2 * np.pi * np.arange(count) / count
    offsets = 0.1 * np.stack([np.cos(angle), np.sin(angle)], -1)[None]
    g("Add", centre, g.constant(offsets), out=prefix + "kp_value")
    eye = g.constant(np.broadcast_to(np.eye(2), (1, count, 2, 2)))
    zero = g("Mul", g("Reshape", total, g.constant([1, 1, 1, 1], np.int64)), g.constant(0.0))
    g("Add", eye, zero, out=prefix + "kp_jacobian")


def _transfer(g: Graph, count: int) -> None:
    moved = g("Sub", "driving_kp_value", "reference_kp_value")
    relative = g("Add", "source_kp_value", g("Mul", moved, "scale"))
    is_relative = g("Greater", "relative", g.constant(0.5))
    raw = g("Where", is_relative, relative, "driving_kp_value")
    flat = g("Reshape", raw, g.constant([1, 2 * count], np.int64))
    cut = [g.constant([i], np.int64) for i in (0, 1, 2 * count + 1)]
    axis = g.constant([1], np.int64)
    seen = g("Slice", "state", cut[0], cut[1], axis)
    last = g("Slice", "state", cut[1], cut[2], axis)
    rate = g("Mul", g("Mul", "min_cutoff", "dt_seconds"), g.constant(6.2831855))
    low_pass = g("Div", rate, g("Add", rate, g.constant(1.0)))
    smoothed = g("Add", last, g("Mul", g("Sub", flat, last), low_pass))
    fresh = g("Less", seen, g.constant(0.5))
    off = g("LessOrEqual", "min_cutoff", g("Mul", "beta", g.constant(0.0)))
    result = g("Where", g("Or", fresh, off), flat, smoothed)
    g("Reshape", result, g.constant([1, count, 2], np.int64), out="target_kp_value")
    g("Concat", g.constant([[1.0]]), result, axis=1, out="next_state")
    jacobian = g("MatMul", "driving_kp_jacobian", "reference_kp_jacobian")
    g("MatMul", jacobian, "source_kp_jacobian", out="target_kp_jacobian")


def _motion(g: Graph, count: int) -> None:
    axis = (2 * np.arange(MAP, dtype=np.float32) + 1) / MAP - 1
    grid = np.stack(np.meshgrid(axis, axis), -1)[None]
    move = g("Sub", "source_kp_value", "target_kp_value")
    mean = g("ReduceMean", move, g.constant([1], np.int64), keepdims=1)
    shift = g("Reshape", mean, g.constant([1, 1, 1, 2], np.int64))
    g("Add", g.constant(grid), shift, out="deformation")
    zero = g("ReduceMean", "source_small", g.constant([1], np.int64), keepdims=1)
    g("Add", g("Mul", zero, g.constant(0.0)), g.constant(1.0), out="occlusion_map")


def _generator(g: Graph, size: int) -> None:
    planes = g("Transpose", "deformation", perm=[0, 3, 1, 2])
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    grids = []
    for planar in (planes, "occlusion_map"):
        depth = 2 if planar == planes else 1
        sizes = g.constant([1, depth, size, size], np.int64)
        grids.append(g("Resize", planar, "", "", sizes, **linear))
    grid = g("Transpose", grids[0], perm=[0, 2, 3, 1])
    warped = g("GridSample", "source_feature", grid, mode="linear", padding_mode="zeros")
    levels = g("Mul", g("Mul", warped, grids[1]), g.constant(255.0))
    clipped = g("Clip", g("Round", levels), g.constant(0.0), g.constant(255.0))
    g("Cast", clipped, to=TensorProto.UINT8, out="frame")


def make_toy_bundle(
    folder: Path, size: int = 64, channels: int = 1, keypoints: int = 3, layers: bool = False
) -> Path:
    """Write a toy bundle into `folder`, which is made, and return it; with neutral layers or none.

    The frame stays what the generator makes, whatever the layers say.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def tensor(name: str, *shape: int, dtype: Any = "float32") -> contract.Tensor:
        return contract.Tensor(name, dtype, shape, "a toy's " + name.replace("_", " "))

    def points(prefix: str) -> list[contract.Tensor]:
        return [
            tensor(prefix + "kp_value", 1, keypoints, 2),
            tensor(prefix + "kp_jacobian", 1, keypoints, 2, 2),
        ]

    def image(name: str) -> contract.Tensor:
        return tensor(name, 1, channels, size, size, dtype="uint8")

    small = tensor("source_small", 1, channels, MAP, MAP)
    feature = tensor("source_feature", 1, channels, size, size)
    maps = [tensor("deformation", 1, MAP, MAP, 2), tensor("occlusion_map", 1, 1, MAP, MAP)]
    beside = [tensor(name, 1, 1, MAP, MAP) for name in ("gate", "offset")] if layers else []
    state = 1 + 2 * keypoints
    controls = [tensor(control.name, 1) for control in CONTROLS]

    source = Graph()
    source("Div", source("Cast", "source_image", to=1), source.constant(255.0), out=feature.name)
    block = size // MAP
    pool = {"kernel_shape": [block, block], "strides": [block, block]}
    source("AveragePool", feature.name, out=small.name, **pool)
    _detect(source, "source_image", size, keypoints, "source_")
    detector, transfer, motion, generator = Graph(), Graph(), Graph(), Graph()
    _detect(detector, "driving_frame", size, keypoints, "driving_")
    _transfer(transfer, keypoints)
    _motion(motion, keypoints)
    for i, layer in enumerate(beside):
        motion("Sub", "occlusion_map", motion.constant(float(i)), out=layer.name)
    _generator(generator, size)

    plans: list[Plan] = [
        ("source", "source", source, [image("source_image")],
         [small, *points("source_"), feature]),
        ("keypoints", "observe", detector, [image("driving_frame")], points("driving_")),
        ("transfer", "frame", transfer,
         [*points("source_"), *points("reference_"), *points("driving_"), *controls,
          tensor("state", 1, state)],
         [*points("target_"), tensor("next_state", 1, state)]),
        ("motion", "frame", motion,
         [small, points("source_")[0], points("target_")[0]], [*maps, *beside]),
        ("generator", "frame", generator, [feature, *maps], [image("frame")]),
    ]  # fmt: skip
    return write_toy(
        folder, plans, contract.ImageFormat(size, 1 if channels == 1 else 3),
        control=contract.KeypointControl(keypoints, (contract.SupervisedKeypoint(0, "blob"),)),
        controls=CONTROLS,
        recurrent=(contract.Recurrent("next_state", "state"),),
        layers=contract.Layers("deformation", "deformation", "gate", "offset", "gate")
        if layers
        else None,
    )  # fmt: skip


def write_toy(
    folder: Path, plans: Sequence[Plan], image: contract.ImageFormat, **chain: Any
) -> Path:
    """Write stages (name, role, graph, inputs, outputs) and a manifest about them."""
    size, channels = image.size, image.channels
    stages = []
    for name, role, graph, inputs, outputs in plans:
        file = f"{name}.onnx"
        graph.save(folder / file, inputs, outputs)
        digest = sha256_file(folder / file)
        stages.append(contract.StageFile(name, role, tuple(inputs), tuple(outputs), file, digest))
    golden = {
        "source": blob(size, 0.1, -0.2, channels),
        "reference": blob(size, -0.1, 0.1, channels),
        "driving": blob(size, -0.3, 0.2, channels),
        # Relative motion moves the source's blob as the driving one has moved.
        "output": blob(size, -0.1, -0.1, channels),
    }
    digests = {}
    for name, picture in golden.items():
        digests[name] = _write(folder, f"golden_{name}.png", png_bytes(picture))
    card = _write(folder, "MODEL_CARD.md", b"# A toy\n")
    manifest = contract.Manifest(
        schema_version=contract.SCHEMA_VERSION,
        name="toy",
        preset="toy",
        created_with="test",
        image=image,
        geometry="half_pixel",
        precision="fp32",
        stages=tuple(stages),
        tolerances=contract.Tolerances(1e-4, frame_levels=255),
        golden=contract.Golden(**digests, motion="relative"),
        provenance=contract.Provenance("", 0, (contract.DataCredit("none", "CC0"),), "CC0"),
        **chain,
        files=(card,),
    )
    write_manifest(folder, manifest)
    return folder


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
    (folder / file).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()

    def change(data: dict[str, Any]) -> None:
        golden = (entry for entry in data["golden"].values() if isinstance(entry, dict))
        for entry in (*data["stages"], *data["files"], *golden):
            if entry["file"] == file:
                entry["sha256"] = digest

    edit_manifest(folder, change)


def rename_tensor(folder: Path, old: str, new: str) -> None:
    """Give a tensor another name, in the manifest and in every stage's file."""
    for path in sorted(folder.glob("*.onnx")):
        model = onnx.load(path)
        for value in (*model.graph.input, *model.graph.output):
            value.name = new if value.name == old else value.name
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]
        replace_file(folder, path.name, model.SerializeToString())
    manifest = folder / contract.MANIFEST
    manifest.write_text(manifest.read_text().replace(f'"{old}"', f'"{new}"'))


def copy_bundle(bundle: Path, folder: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(bundle, folder))

"""FOMM's checkpoints, written by the names and shapes of its own code."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from sonomime.export.fomm import import_fomm

State = dict[str, Tensor]
SMALL: dict[str, Any] = {
    "dataset_params": {"root_dir": "data/x", "frame_shape": [256, 256, 3]},
    "model_params": {
        "common_params": {"num_kp": 3, "num_channels": 3, "estimate_jacobian": True},
        "kp_detector_params": {
            "temperature": 0.1,
            "block_expansion": 4,
            "max_features": 16,
            "scale_factor": 0.25,
            "num_blocks": 3,
        },
        "generator_params": {
            "block_expansion": 4,
            "max_features": 12,
            "num_down_blocks": 2,
            "num_bottleneck_blocks": 2,
            "estimate_occlusion_map": True,
            "dense_motion_params": {
                "block_expansion": 5,
                "max_features": 24,
                "num_blocks": 4,
                "scale_factor": 0.25,
            },
        },
        "discriminator_params": {"scales": [1], "block_expansion": 32, "sn": True},
    },
    "train_params": {"num_epochs": 100, "anything": {"at": "all"}},
}


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """SMALL with ``section.key`` of model_params set, or removed when the value is ``...``."""
    table = copy.deepcopy(SMALL)
    for path, value in changes:
        *sections, last = path.split(".")
        section = table["model_params"]
        for name in sections:
            section = section[name]
        if value is ...:
            del section[last]
        else:
            section[last] = value
    return table


VARIANT = changed(
    ("common_params.num_kp", 5),
    ("kp_detector_params.num_blocks", 2),
    ("kp_detector_params.pad", 0),
    ("kp_detector_params.single_jacobian_map", False),
    ("generator_params.num_down_blocks", 3),
    ("generator_params.num_bottleneck_blocks", 1),
    ("generator_params.dense_motion_params.kp_variance", 0.02),
)


class Maker:
    """Fills a state dict with random tensors whose activations stay around 1."""

    def __init__(self, seed: int, tracked: bool) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.tracked = tracked
        self.state: State = {}

    def draw(self, key: str, shape: tuple[int, ...], scale: float, shift: float = 0.0) -> None:
        self.state[key] = scale * torch.randn(shape, generator=self.random) + shift

    def conv(self, key: str, inputs: int, outputs: int, kernel: int, gain: float = 1.4) -> None:
        shape = (outputs, inputs, kernel, kernel)
        self.draw(f"{key}.weight", shape, gain / (inputs * kernel * kernel) ** 0.5)
        self.draw(f"{key}.bias", (outputs,), 0.1)

    def norm(self, key: str, width: int) -> None:
        self.draw(f"{key}.weight", (width,), 0.2, 1.0)
        self.draw(f"{key}.bias", (width,), 0.2)
        self.draw(f"{key}.running_mean", (width,), 0.2)
        self.draw(f"{key}.running_var", (width,), 0.2, 1.0)
        self.state[f"{key}.running_var"].abs_().add_(0.1)
        if self.tracked:
            self.state[f"{key}.num_batches_tracked"] = torch.tensor(12345)

    def block(self, key: str, inputs: int, outputs: int, kernel: int = 3) -> None:
        self.conv(f"{key}.conv", inputs, outputs, kernel)
        self.norm(f"{key}.norm", outputs)

    def hourglass(self, key: str, inputs: int, params: dict[str, Any]) -> int:
        width, most, depth = (
            params[name] for name in ("block_expansion", "max_features", "num_blocks")
        )
        for i in range(depth):
            before = inputs if i == 0 else min(most, width * 2**i)
            self.block(f"{key}.encoder.down_blocks.{i}", before, min(most, width * 2 ** (i + 1)))
        for n in range(depth):
            i = depth - 1 - n
            before = min(most, width * 2 ** (i + 1)) * (1 if n == 0 else 2)
            self.block(f"{key}.decoder.up_blocks.{n}", before, min(most, width * 2**i))
        return int(width + inputs)

    def down(self, key: str, channels: int) -> None:
        # A little off the textbook's Gaussian: the kernel must come from the file.
        line = torch.exp(-((torch.arange(13.0) - 6) ** 2) / (2 * 1.6**2))
        kernel = torch.outer(line, line) / line.sum() ** 2
        self.state[key] = kernel.expand(channels, 1, 13, 13).clone()


def make_fomm(table: dict[str, Any], seed: int = 0, tracked: bool = True) -> dict[str, Any]:
    """What FOMM's training saves for this YAML table, with random numbers."""
    params = table["model_params"]
    points, channels = (params["common_params"][name] for name in ("num_kp", "num_channels"))
    detector = Maker(seed, tracked)
    detector.down("down.weight", channels)
    width = detector.hourglass("predictor", channels, params["kp_detector_params"])
    detector.conv("kp", width, points, 7, gain=1.0)
    detector.conv("jacobian", width, 4 * points, 7, gain=0.3)
    detector.state["jacobian.bias"] += torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(points)

    maker, settings = Maker(seed + 1, tracked), params["generator_params"]
    motion = "dense_motion_network"
    maker.down(f"{motion}.down.weight", channels)
    inputs = (points + 1) * (channels + 1)
    width = maker.hourglass(f"{motion}.hourglass", inputs, settings["dense_motion_params"])
    maker.conv(f"{motion}.mask", width, points + 1, 7)
    maker.conv(f"{motion}.occlusion", width, 1, 7)
    downs = settings["num_down_blocks"]
    widths = [
        min(settings["max_features"], settings["block_expansion"] * 2**i) for i in range(downs + 1)
    ]
    maker.block("first", channels, widths[0], 7)
    for i in range(downs):
        maker.block(f"down_blocks.{i}", widths[i], widths[i + 1])
        maker.block(f"up_blocks.{i}", widths[downs - i], widths[downs - i - 1])
    for i in range(settings["num_bottleneck_blocks"]):
        for n in (1, 2):
            maker.conv(f"bottleneck.r{i}.conv{n}", widths[-1], widths[-1], 3)
            maker.norm(f"bottleneck.r{i}.norm{n}", widths[-1])
    maker.conv("final", widths[0], channels, 7)
    return {
        "generator": maker.state,
        "kp_detector": detector.state,
        "discriminator": {"whatever": torch.zeros(3)},
        "optimizer_generator": {"state": {}, "param_groups": [{"lr": 2e-4, "betas": (0.5, 0.999)}]},
        "epoch": 99,
    }


class Files(NamedTuple):
    pth: Path
    yaml: Path
    out: Path

    def run(self) -> Path:
        import_fomm(*self)
        return self.out


def write(folder: Path, payload: Any, table: Any) -> Files:
    files = Files(folder / "fomm.pth.tar", folder / "fomm.yaml", folder / "imported.pt")
    torch.save(payload, files.pth)
    files.yaml.write_text(yaml.safe_dump(table))
    return files


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)

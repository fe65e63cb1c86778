"""FOMM in functions alone, from METHOD: its forward pass, and checkpoints of what that asks for.

Names and shapes are those of FOMM's own checkpoints.
"""

from __future__ import annotations

import copy
import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from sonomime.export.fomm import import_fomm

SMALL: dict[str, Any] = yaml.safe_load("""
dataset_params: {root_dir: data/x, frame_shape: [256, 256, 3]}
model_params:
  common_params: {num_kp: 3, num_channels: 3, estimate_jacobian: true}
  kp_detector_params:
    {temperature: 0.1, block_expansion: 4, max_features: 16, scale_factor: 0.25, num_blocks: 3}
  generator_params:
    {block_expansion: 4, max_features: 12, num_down_blocks: 2, num_bottleneck_blocks: 2,
     estimate_occlusion_map: true, dense_motion_params:
     {block_expansion: 5, max_features: 24, num_blocks: 4, scale_factor: 0.25}}
  discriminator_params: {scales: [1], block_expansion: 32, sn: true}
train_params: {num_epochs: 100, anything: {at: all}}
""")


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """SMALL with ``section.key`` of model_params set, or removed when the value is ``...``."""
    table = copy.deepcopy(SMALL)
    for path, value in changes:
        *sections, last = path.split(".")
        section = functools.reduce(dict.__getitem__, sections, table["model_params"])
        if value is ...:
            del section[last]
        else:
            section[last] = value
    return table


class Network(dict[str, Tensor]):
    """A state dict that makes what it is asked for: random, so that activations stay around 1."""

    def __init__(self, seed: int, tracked: bool) -> None:
        super().__init__()
        self.random = torch.Generator().manual_seed(seed)
        self.tracked = tracked

    def draw(self, key: str, shape: tuple[int, ...], scale: float, shift: Any = 0.0) -> Tensor:
        if key not in self:
            self[key] = scale * torch.randn(shape, generator=self.random) + shift
        return self[key]

    def conv(
        self, key: str, x: Tensor, outputs: int, kernel: int, padding: int, gain: float = 1.4,
        shift: Any = 0.0,
    ) -> Tensor:  # fmt: skip
        shape, scale = (outputs, x.shape[1], kernel, kernel), gain / (x.shape[1] ** 0.5 * kernel)
        weight = self.draw(f"{key}.weight", shape, scale)
        return F.conv2d(x, weight, self.draw(f"{key}.bias", (outputs,), 0.1, shift), 1, padding)

    def norm(self, key: str, x: Tensor) -> Tensor:
        width = x.shape[1:2]
        weight = self.draw(f"{key}.weight", width, 0.2, 1.0)
        bias = self.draw(f"{key}.bias", width, 0.2)
        mean = self.draw(f"{key}.running_mean", width, 0.2)
        var = self.draw(f"{key}.running_var", width, 0.1, 1.0)
        if self.tracked:
            self[f"{key}.num_batches_tracked"] = torch.tensor(12345)
        scaled = (x - mean[:, None, None]) / torch.sqrt(var + 1e-5)[:, None, None]
        return scaled * weight[:, None, None] + bias[:, None, None]

    def block(self, key: str, x: Tensor, outputs: int, kernel: int = 3) -> Tensor:
        made = self.conv(f"{key}.conv", x, outputs, kernel, kernel // 2)
        return F.relu(self.norm(f"{key}.norm", made))

    def hourglass(self, key: str, x: Tensor, params: dict[str, Any]) -> Tensor:
        names = ("block_expansion", "max_features", "num_blocks")
        width, most, depth = (params[name] for name in names)
        widths, skips = [min(most, width * 2**i) for i in range(depth + 1)], [x]
        for i in range(depth):
            made = self.block(f"{key}.encoder.down_blocks.{i}", skips[-1], widths[i + 1])
            skips.append(F.avg_pool2d(made, 2))
        x = skips.pop()
        for i in range(depth):
            doubled = F.interpolate(x, scale_factor=2)
            x = self.block(f"{key}.decoder.up_blocks.{i}", doubled, widths[depth - 1 - i])
            x = torch.cat([x, skips.pop()], dim=1)
        return x

    def quarter(self, key: str, x: Tensor) -> Tensor:
        # A little off the textbook's Gaussian: the kernel must come from the file.
        line = torch.exp(-((torch.arange(13.0) - 6) ** 2) / (2 * 1.6**2))
        kernel = (torch.outer(line, line) / line.sum() ** 2).expand(x.shape[1], 1, 13, 13)
        weight = self.draw(key, kernel.shape, 0.0, kernel)
        return F.conv2d(F.pad(x, (6, 6, 6, 6)), weight, groups=x.shape[1])[:, :, ::4, ::4]


def centres(height: int, width: int) -> Tensor:
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    return torch.stack([x, y], dim=-1)


class Points(NamedTuple):
    value: Tensor
    jacobian: Tensor


def keypoints(s: Network, table: dict[str, Any], image: Tensor) -> Points:
    params = table["model_params"]
    detector, count = params["kp_detector_params"], params["common_params"]["num_kp"]
    feature = s.hourglass("predictor", s.quarter("down.weight", image), detector)
    logits = s.conv("kp", feature, count, 7, 0, 1.0)
    b, k, h, w = logits.shape
    heatmap = torch.softmax(logits.flatten(2) / detector["temperature"], dim=2)
    value = torch.einsum("bkn,nc->bkc", heatmap, centres(h, w).view(-1, 2))
    if not params["common_params"].get("estimate_jacobian"):
        return Points(value, torch.eye(2).expand(b, k, 2, 2))
    several = 1 if detector.get("single_jacobian_map") else count
    identity = torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(several)
    maps = s.conv("jacobian", feature, 4 * several, 7, 0, 0.3, identity)
    maps = maps.view(b, several, 2, 2, h * w).expand(b, k, 2, 2, h * w)
    return Points(value, torch.einsum("bkn,bkijn->bkij", heatmap, maps))


def relative(source: Points, driving: Points, initial: Points, adapt_scale: bool) -> Points:
    """Where the source's keypoints go: METHOD, "At inference"."""
    scale = (hull_area(source.value) / hull_area(initial.value)).sqrt() if adapt_scale else 1
    turn = driving.jacobian @ torch.linalg.inv(initial.jacobian)
    value = source.value + scale * (driving.value - initial.value)
    return Points(value, turn @ source.jacobian)


def hull_area(value: Tensor) -> Tensor:
    """Of three points, (1, 3, 2)."""
    a, b, c = value[0]
    return torch.linalg.det(torch.stack([b - a, c - a])).abs() / 2


@torch.no_grad()
def generate(
    s: Network, table: dict[str, Any], source: Tensor, start: Points, target: Points, align: bool
) -> tuple[Tensor, ...]:
    """Deformation, occlusion and prediction. ``align``: what grid_sample meant by default in the
    torch that it was trained with."""
    settings = table["model_params"]["generator_params"]
    dense, name = settings["dense_motion_params"], "dense_motion_network"
    (p_s, j_s), (p_d, j_d) = start, target

    def read(x: Tensor, where: Tensor) -> Tensor:
        return F.grid_sample(x, where, "bilinear", "zeros", align_corners=align)

    small = s.quarter(f"{name}.down.weight", source)
    h, w = small.shape[2:]
    grid, count = centres(h, w), p_s.shape[1]
    variance = dense.get("kp_variance", 0.01)
    still = grid.expand(len(source), h, w, 2)
    motions, slots = [still], [torch.zeros(len(source), 1, h, w), read(small, still)]
    for k in range(count):
        affine = j_s[:, k] @ torch.linalg.inv(j_d[:, k])
        from_d, from_s = (grid[None] - p[:, k, None, None] for p in (p_d, p_s))
        moved = torch.einsum("bij,bhwj->bhwi", affine, from_d) + p_s[:, k, None, None]
        near_d, near_s = (torch.exp(-(d**2).sum(-1) / (2 * variance)) for d in (from_d, from_s))
        motions.append(moved)
        slots += [(near_d - near_s)[:, None], read(small, moved)]
    feature = s.hourglass(f"{name}.hourglass", torch.cat(slots, 1), dense)
    masks = torch.softmax(s.conv(f"{name}.mask", feature, count + 1, 7, 3), dim=1)
    deformation = sum(masks[:, k, :, :, None] * moved for k, moved in enumerate(motions))
    assert isinstance(deformation, Tensor)
    occlusion = torch.ones(len(source), 1, h, w)
    if settings.get("estimate_occlusion_map"):
        occlusion = torch.sigmoid(s.conv(f"{name}.occlusion", feature, 1, 7, 3))

    downs = settings["num_down_blocks"]
    most, width = settings["max_features"], settings["block_expansion"]
    widths = [min(most, width * 2**i) for i in range(downs + 1)]
    x = s.block("first", source, widths[0], 7)
    for i in range(downs):
        x = F.avg_pool2d(s.block(f"down_blocks.{i}", x, widths[i + 1]), 2)
    maps = torch.cat([deformation.permute(0, 3, 1, 2), occlusion], 1)
    maps = F.interpolate(maps, size=x.shape[2:], mode="bilinear")
    x = read(x, maps[:, :2].permute(0, 2, 3, 1)) * maps[:, 2:]
    for i in range(settings["num_bottleneck_blocks"]):
        y = x
        for n in (1, 2):
            y = F.relu(s.norm(f"bottleneck.r{i}.norm{n}", y))
            y = s.conv(f"bottleneck.r{i}.conv{n}", y, widths[-1], 3, 1)
        x = x + y
    for i in range(downs):
        x = s.block(f"up_blocks.{i}", F.interpolate(x, scale_factor=2), widths[downs - i - 1])
    prediction = torch.sigmoid(s.conv("final", x, 3, 7, 3))
    return deformation, occlusion, prediction


def make_fomm(table: dict[str, Any], seed: int = 0, tracked: bool = True) -> dict[str, Any]:
    """What FOMM's training saves for this YAML table, with random numbers."""
    detector, generator = Network(seed, tracked), Network(seed + 1, tracked)
    nothing = torch.zeros(1, table["model_params"]["common_params"]["num_channels"], 256, 256)
    with torch.no_grad():
        points = keypoints(detector, table, nothing)
    generate(generator, table, nothing, points, points, align=True)
    return {
        "generator": generator,
        "kp_detector": detector,
        "discriminator": {"whatever": torch.zeros(3)},
        "optimizer_generator": {"state": {}, "param_groups": [{"lr": 2e-4, "betas": (0.5, 0.999)}]},
        "epoch": 99,
    }


class Files(NamedTuple):
    pth: Path
    yaml: Path
    out: Path

    def run(self, sampling: str = "trained-before-torch-1.3") -> Path:
        import_fomm(*self, sampling)
        return self.out


def write(folder: Path, payload: Any, table: Any) -> Files:
    files = Files(folder / "fomm.pth.tar", folder / "fomm.yaml", folder / "imported.pt")
    if isinstance(payload, dict):  # files have plain dicts
        payload = {k: dict(v) if isinstance(v, Network) else v for k, v in payload.items()}
    torch.save(payload, files.pth)
    files.yaml.write_text(yaml.safe_dump(table))
    return files


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)

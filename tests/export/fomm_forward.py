"""FOMM's forward pass, from METHOD.md, of functions alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .fomm_checkpoints import State


class Expected(NamedTuple):
    source: tuple[Tensor, Tensor]
    driving: tuple[Tensor, Tensor]
    deformation: Tensor
    occlusion: Tensor
    prediction: Tensor


def conv(s: State, key: str, x: Tensor, padding: int) -> Tensor:
    return F.conv2d(x, s[f"{key}.weight"], s[f"{key}.bias"], padding=padding)


def norm(s: State, key: str, x: Tensor) -> Tensor:
    names = ("running_mean", "running_var", "weight", "bias")
    mean, var, weight, bias = (s[f"{key}.{name}"][:, None, None] for name in names)
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


def block(s: State, key: str, x: Tensor, padding: int = 1) -> Tensor:
    return F.relu(norm(s, f"{key}.norm", conv(s, f"{key}.conv", x, padding)))


def hourglass(s: State, key: str, x: Tensor, depth: int) -> Tensor:
    skips = [x]
    for i in range(depth):
        skips.append(F.avg_pool2d(block(s, f"{key}.encoder.down_blocks.{i}", skips[-1]), 2))
    x = skips.pop()
    for i in range(depth):
        x = block(s, f"{key}.decoder.up_blocks.{i}", F.interpolate(x, scale_factor=2))
        x = torch.cat([x, skips.pop()], dim=1)
    return x


def quarter(s: State, key: str, x: Tensor) -> Tensor:
    blurred = F.conv2d(F.pad(x, (6, 6, 6, 6)), s[key], groups=x.shape[1])
    return blurred[:, :, ::4, ::4]


def centres(height: int, width: int) -> Tensor:
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    return torch.stack([x, y], dim=-1)


def keypoints(s: State, params: dict[str, Any], image: Tensor) -> tuple[Tensor, Tensor]:
    feature = hourglass(s, "predictor", quarter(s, "down.weight", image), params["num_blocks"])
    logits = conv(s, "kp", feature, 0)
    b, k, h, w = logits.shape
    heatmap = torch.softmax(logits.flatten(2) / params["temperature"], dim=2)
    value = torch.einsum("bkn,nc->bkc", heatmap, centres(h, w).view(-1, 2))
    maps = conv(s, "jacobian", feature, 0).view(b, k, 2, 2, h * w)
    return value, torch.einsum("bkn,bkijn->bkij", heatmap, maps)


def read(x: Tensor, where: Tensor) -> Tensor:
    return F.grid_sample(x, where, mode="bilinear", padding_mode="zeros", align_corners=False)


def forward(
    payload: dict[str, Any], table: dict[str, Any], source: Tensor, driving: Tensor
) -> Expected:
    params, s = table["model_params"], payload["generator"]
    settings = params["generator_params"]
    motion_settings = settings["dense_motion_params"]
    detected = [
        keypoints(payload["kp_detector"], params["kp_detector_params"], image)
        for image in (source, driving)
    ]
    (p_s, j_s), (p_d, j_d) = detected
    small = quarter(s, "dense_motion_network.down.weight", source)
    h, w = small.shape[2:]
    grid = centres(h, w)
    variance = motion_settings.get("kp_variance", 0.01)
    motions, slots = [grid.expand(len(source), h, w, 2)], []
    for k in range(p_s.shape[1]):
        affine = j_s[:, k] @ torch.linalg.inv(j_d[:, k])
        offset = grid[None] - p_d[:, k, None, None]
        motions.append(torch.einsum("bij,bhwj->bhwi", affine, offset) + p_s[:, k, None, None])
    for k, moved in enumerate(motions):
        heat = torch.zeros(len(source), 1, h, w)
        if k > 0:
            near = [
                torch.exp(-((grid[None] - p[:, k - 1, None, None]) ** 2).sum(-1) / (2 * variance))
                for p in (p_d, p_s)
            ]
            heat = (near[0] - near[1])[:, None]
        slots += [heat, read(small, moved)]
    feature = hourglass(
        s, "dense_motion_network.hourglass", torch.cat(slots, 1), motion_settings["num_blocks"]
    )
    masks = torch.softmax(conv(s, "dense_motion_network.mask", feature, 3), dim=1)
    deformation = sum(masks[:, k, :, :, None] * moved for k, moved in enumerate(motions))
    assert isinstance(deformation, Tensor)
    occlusion = torch.sigmoid(conv(s, "dense_motion_network.occlusion", feature, 3))

    x = block(s, "first", source, 3)
    for i in range(settings["num_down_blocks"]):
        x = F.avg_pool2d(block(s, f"down_blocks.{i}", x), 2)
    size, where, shade = x.shape[2:], deformation, occlusion
    if tuple(size) != (h, w):
        where = F.interpolate(deformation.permute(0, 3, 1, 2), size=size, mode="bilinear")
        where = where.permute(0, 2, 3, 1)
        shade = F.interpolate(occlusion, size=size, mode="bilinear")
    x = read(x, where) * shade
    for i in range(settings["num_bottleneck_blocks"]):
        key = f"bottleneck.r{i}"
        y = conv(s, f"{key}.conv1", F.relu(norm(s, f"{key}.norm1", x)), 1)
        x = x + conv(s, f"{key}.conv2", F.relu(norm(s, f"{key}.norm2", y)), 1)
    for i in range(settings["num_down_blocks"]):
        x = block(s, f"up_blocks.{i}", F.interpolate(x, scale_factor=2))
    prediction = torch.sigmoid(conv(s, "final", x, 3))
    return Expected(detected[0], detected[1], deformation, occlusion, prediction)

"""What the model makes of the probe, the same few pairs at every look: a picture for people, and
figures and places that can be followed over the steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .coordinates import points_to_pixels
from .logbook import Grid, picture_grid
from .models.base import Columns
from .models.geometry import make_grid, to_edges

TRACKED = 2  # pairs whose points are recorded
_FAR = 1.5  # from the middle, in points: so far away a family puts a point that is not there


class Look(NamedTuple):
    """A picture grid, (H, W, 3) RGB, and the record of one step for probe.jsonl."""

    picture: Grid
    record: dict[str, Any]


def look(shown: Columns, geometry: str) -> Look:
    """What a family shows of the probe, as a picture and in numbers."""
    # A model that is going wrong is drawn too: its losses say what is not finite.
    images, points = (
        {name: each.float().nan_to_num().clamp(-9, 9).cpu().numpy() for name, each in part.items()}
        for part in (shown.images, shown.points)
    )
    return Look(picture_grid(images, points, geometry), measured(shown, geometry))


def measured(shown: Columns, geometry: str) -> dict[str, Any]:
    """Figures over all pairs, lengths in pixels of 256, and where points lie in the first pairs.

    Returns:
        displacement_mean, displacement_max: length of the deformation's displacement.
        spread: root mean square distance of an image's keypoints from their middle, the median
            over the images. closest: [i, j, distance] of the two keypoints that never lie farther
            apart than that.
        determinant: [k, value]: the keypoint whose jacobian has the smallest abs(det), by the
            median over the images.
        occlusion, gate: mean of the map.
        points: by column, (TRACKED, K, 2) in pixels of the frame; None where there is none.
        What a family does not have is left out.
    """
    moved = displacement(shown.images["deformation"].float(), geometry)
    record: dict[str, Any] = {"displacement_mean": moved.mean(), "displacement_max": moved.max()}
    watched = {name: tensor.float().cpu() for name, tensor in shown.watched.items()}
    if "keypoints" in watched:
        places = watched["keypoints"] * 128
        offset = places - places.mean(dim=1, keepdim=True)
        record["spread"] = offset.square().sum(-1).mean(1).sqrt().median()
        count = places.shape[1]
        if count > 1:
            apart = torch.cdist(places, places).amax(0) + torch.eye(count) * 1e9
            i, j = divmod(int(apart.argmin()), count)
            record["closest"] = [i, j, apart[i, j]]
    if "jacobian" in watched:
        size = torch.linalg.det(watched["jacobian"]).abs().median(dim=0).values
        record["determinant"] = [int(size.argmin()), size.min()]
    for name in ("occlusion", "gate"):
        if name in watched:
            record[name] = watched[name].mean()
    side = shown.images["source"].shape[-1]
    record["points"] = {
        name: [
            [_pixels(point, side, geometry) for point in image]
            for image in places[:TRACKED].float().cpu()
        ]
        for name, places in shown.points.items()
    }
    return {name: _plain(value) for name, value in record.items()}


def displacement(deformation: Tensor, geometry: str) -> Tensor:
    """How far away each pixel reads, (B, h, w), in pixels of 256: (B, h, w, 2) in its geometry."""
    height, width = deformation.shape[1:3]
    places = to_edges(deformation, deformation.permute(0, 3, 1, 2), geometry)
    still = make_grid(height, width, "half_pixel", deformation.device)
    return 128 * (places - still).norm(dim=-1)


def _pixels(point: Tensor, side: int, geometry: str) -> list[float] | None:
    there = bool(point.abs().max() < _FAR)
    return points_to_pixels(point, side, geometry).tolist() if there else None


def _plain(value: Any) -> Any:
    """Tensors and numbers rounded for JSON."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, Tensor | float):
        return round(float(value), 4)
    return value

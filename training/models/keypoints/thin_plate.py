"""Random thin-plate splines, for the equivariance losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import in_float32, make_grid


@dataclass(frozen=True)
class ThinPlateSpline:
    """T(u) = A u + b + sum of w_i U(|u - c_i|), U(r) = r^2 ln(r + 1e-6), per sample of a batch.

    Convention: points (x, y) in [-1, 1]. Source: METHOD, "Losses of the keypoint models".
    affine: (B, 2, 3) = [A b]; weights: (B, n, 2); centres: (n, 2).
    """

    affine: Tensor
    weights: Tensor
    centres: Tensor

    def to(self, device: torch.device) -> ThinPlateSpline:
        """The same spline on a device."""
        return ThinPlateSpline(*(t.to(device) for t in (self.affine, self.weights, self.centres)))

    @in_float32
    def __call__(self, points: Tensor) -> Tensor:
        """T of points (B, N, 2)."""
        linear = points @ self.affine[:, :, :2].transpose(1, 2) + self.affine[:, :, 2][:, None]
        across, down = points[..., :1] - self.centres[:, 0], points[..., 1:] - self.centres[:, 1]
        square = across.square() + down.square()
        # 1e-12: a root's slope at 0 is infinite, and a keypoint may sit on a control point.
        return linear + (square * ((square + 1e-12).sqrt() + 1e-6).log()) @ self.weights

    @in_float32
    def jacobian(self, points: Tensor) -> Tensor:
        """dT/du at points (B, N, 2): (B, N, 2, 2), row = output coordinate."""
        offset = points[:, :, None] - self.centres
        r = offset.norm(dim=-1, keepdim=True)
        # dU/du = (u - c) (2 ln(r + e) + r / (r + e)): no division by r, which is 0 at a centre.
        slope = offset * (2 * (r + 1e-6).log() + r / (r + 1e-6))
        bend = torch.einsum("bnid,bio->bnod", slope, self.weights)
        return self.affine[:, None, :, :2] + bend

    def warp(self, image: Tensor, geometry: str) -> Tensor:
        """Y(z) = X(T(z)) with reflection padding; image (B, C, S, S)."""
        batch, _, height, width = image.shape
        grid = make_grid(height, width, geometry, image.device).view(1, -1, 2).expand(batch, -1, 2)
        where = self(grid).view(batch, height, width, 2)
        return F.grid_sample(image, where, padding_mode="reflection", align_corners=False)


def random_thin_plate_spline(
    batch: int,
    generator: torch.Generator,
    sigma_affine: float = 0.05,
    sigma_weights: float = 0.005,
    side: int = 5,
) -> ThinPlateSpline:
    """Draw [A b] = [I 0] + N(0, sigma_affine), and N(0, sigma_weights) at side x side points.

    On the CPU, so that one seed gives one spline on every device.
    """
    identity = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    affine = identity + sigma_affine * torch.randn(batch, 2, 3, generator=generator)
    weights = sigma_weights * torch.randn(batch, side * side, 2, generator=generator)
    centres = make_grid(side, side, "fomm").reshape(-1, 2)
    return ThinPlateSpline(affine, weights, centres)
